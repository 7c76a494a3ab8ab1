//! What goes over the wire: error codes, client messages, server messages. Sans-I/O: nothing here
//! reads a socket, a clock or a store.

mod code;

pub use code::Code;
