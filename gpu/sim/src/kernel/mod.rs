//! The kernel of a simulated host: the tree of files it keeps, and what it answers when one is written.
