//! The image format: what a generation holds ([`model`]) and how it lies in files. Pure: bytes in, meaning out.
#![forbid(unsafe_code)]

mod base64;
pub mod model;
