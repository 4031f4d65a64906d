//! Keeps the tree true: generated files, walls, sizes, links. `WHYDOWN_FIX=1` rewrites what is generated.

mod causes;
mod parameters;
mod tree;
