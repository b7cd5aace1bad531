//! Functions in assembly, for guests that need to know each instruction.

/// As `global_asm!`, with `function NAME` and `done NAME` around what is a function with a symbol of its own.
#[macro_export]
macro_rules! functions {
    ($($code:tt)*) => {
        core::arch::global_asm!(
            ".macro function name:req",
            ".balign 16",
            ".global \\name",
            ".type \\name, @function",
            "\\name:",
            ".endm",
            ".macro done name:req",
            ".size \\name, . - \\name",
            ".endm",
            $($code)*
        );
    };
}
