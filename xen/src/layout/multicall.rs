//! One of the calls of a multicall: libxc sends every `memory_op` so, since the result there is 64 bits wide.

structure! {
    "struct multicall_entry", 64 bytes;
    OP: u64 = 0, "op";
    RESULT: u64 = 8, "result";
    ARG0: u64 = 16, "args[0]";
    ARG1: u64 = 24, "args[1]";
    ARG2: u64 = 32, "args[2]";
    ARG3: u64 = 40, "args[3]";
    ARG4: u64 = 48, "args[4]";
}
