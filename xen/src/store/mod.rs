//! A xenstore: what tools ask of xenstored, for the domains that are behind sockets.
//!
//! It is what the tools need of one: a tree, watches, transactions, the coming and going of domains. Rights are noted and not enforced, and
//! there is no quota: its socket lets in one user and root. The wire format is a header of four words, and the crates that know it are
//! clients; so it is written here.
//!
//! | file | what lives there |
//! |---|---|
//! | [`wire`] | messages |
//! | [`path`] | names of nodes |
//! | [`tree`] | nodes, and what has changed |
//! | [`watch`] | who hears of what |
//! | [`transaction`] | changes that are made at once |
//! | [`request`] | what is asked, and the reply |
//! | [`server`] | the socket, and the domains' ends |

pub mod path;
pub mod request;
pub mod server;
pub mod transaction;
pub mod tree;
pub mod watch;
pub mod wire;
