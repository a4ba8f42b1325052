//! Laws of the image over random histories, and the files that pin version 1 of every fact.

mod golden;
mod laws;
