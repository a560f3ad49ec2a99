//! The restorer is linked without a C library, position-independent, with relative relocations only.

fn main() {
    for argument in ["-nostartfiles", "-nostdlib", "-static-pie", "-Wl,-z,noexecstack", "-Wl,-z,norelro"] {
        println!("cargo:rustc-link-arg-bin=ckpt-restorer={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
