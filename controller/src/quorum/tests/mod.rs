//! Stories and laws about the quorum: its storage under openraft's suite, power cuts and flipped bytes; and clusters over
//! memory whose links can be cut.

mod deciding;
mod hostile;
mod links;
mod storage;
mod stories;
mod voters;
