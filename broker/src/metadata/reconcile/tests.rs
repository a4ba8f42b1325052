//! Plans from images: one story per rule.
