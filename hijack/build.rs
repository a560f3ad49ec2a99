//! The preload library is linked without a C library and without its start files: it has to load into a program of any
//! libc, and its few references to one are weak (src/libc.rs). The precompiled `core` names an unwinder's function that
//! nothing here calls and no program has.
//!
//! Every program of a job loads it, so its pages and mappings are counted: one mapping for what is only read and for the
//! code, one for what is written, which fits a page (.bss too: the linker's zeroing of it is the page's only fault). What
//! a read-only part of that page (RELRO) would protect is in a page that is written anyway, and costs a call. Without debug information (most of it that of `core`) the file
//! is small: each job has a copy.

fn main() {
    let unwinder = "-Wl,--defsym=rust_eh_personality=0";
    let pages = ["-Wl,--no-rosegment", "-Wl,-z,separate-loadable-segments", "-Wl,-z,norelro"];
    let small = ["-Wl,--strip-debug"];
    let plain = ["-nostartfiles", "-nostdlib", "-Wl,-z,noexecstack", "-Wl,-soname,libckpt_hijack.so", unwinder];
    for argument in plain.iter().chain(&pages).chain(&small) {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
