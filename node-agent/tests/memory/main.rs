//! Memory of a live process goes into a generation and back; a generation that is not as it was written is named.

mod contents;
mod damage;
mod folders;
mod nodes;
mod sample;
mod version_1;
