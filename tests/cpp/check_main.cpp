// The main of every test program.
#include "check.hpp"

int main(int count, char** names) { return check::run(count, names); }
