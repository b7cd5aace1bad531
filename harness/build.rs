//! The built-in scenarios are in the program: when one comes or goes, it is built anew.

fn main() {
    println!("cargo::rerun-if-changed=../snapshots");
}
