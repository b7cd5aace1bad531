//! A live QEMU whose clients and consumers send and write what they like: calls on the control socket, words on the ring page, contents
//! behind it. The plugin answers each, or refuses; it never panics, and QEMU never dies of it. A guest whose memory was written, or
//! whose rings are nobody's, may come to grief: then there is another.
//!
//! The fuzzer, and the variables that make it run for long or on one input, are `mem-event/fuzz`'s.

mod contents;
mod control;
mod hypercalls;
mod live;
mod ring_page;
mod scribbler;
