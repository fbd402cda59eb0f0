//! Configuration files: all bad ones name the bad key, all examples load.
