//! `struct hvm_save_descriptor`: what stands before each record of a saved context.

structure! {
    "struct hvm_save_descriptor", 8 bytes;
    TYPE: u16 = 0, "typecode";
    INSTANCE: u16 = 2, "instance";
    LENGTH: u32 = 4, "length";
}

constants! {
    END: u16 = 0, "HVM_SAVE_CODE(END)";
    HEADER: u16 = 1, "HVM_SAVE_CODE(HEADER)";
    CPU: u16 = 2, "HVM_SAVE_CODE(CPU)";
}
