//! The preload library is linked without a C library and without its start files: it has to load into a program of any
//! libc, and its few references to one are weak (src/libc.rs). The precompiled `core` names an unwinder's function that
//! nothing here calls and no program has.

fn main() {
    let unwinder = "-Wl,--defsym=rust_eh_personality=0";
    for argument in ["-nostartfiles", "-nostdlib", "-Wl,-z,noexecstack", "-Wl,-soname,libckpt_hijack.so", unwinder] {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
