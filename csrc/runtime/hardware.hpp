// What plans know of the machine besides what is tuned for its kind: caches, CPUs and what these
// can do, as the system and they tell.
#pragma once

namespace fastlstm {

struct Hardware {
  double L1 = 0, L2 = 0, L3 = 0;  // bytes of data: of a core, of a core, of those that share it
  int cpus = 1;                   // that this process may use: threads beyond them only take turns
  bool has_pairs = false;         // instructions for products of bfloat16
  bool has_fours = false;         // the same of int8
};

/// This machine's, asked of the system once. Where it does not tell of a cache, a usual size.
Hardware hardware();

/// Has plans made as for so many CPUs from now on, for tests of more threads than there are; 0: for
/// those there are. Returns the old value.
int plan_for_cpus(int n);

}  // namespace fastlstm
