// Lets the caller's world stop a long call (Ctrl-C), between pieces of about a tenth of a second.
#pragma once

namespace fastlstm {

/// Calls what set_interrupt_check gave, at most every 50 ms for each thread. It may throw, and then
/// ends the call. To be called by the calling thread, outside parallel regions.
void check_interrupt();

}  // namespace fastlstm
