//! `struct hvm_save_header`: a saved context's first record.

structure! {
    "struct hvm_save_header", 24 bytes;
    MAGIC: u32 = 0, "magic";
    VERSION: u32 = 4, "version";
}

constants! {
    FILE_MAGIC: u32 = 0x5438_1286, "HVM_FILE_MAGIC";
    FILE_VERSION: u32 = 1, "HVM_FILE_VERSION";
}
