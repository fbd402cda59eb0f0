//! Arguments, then one match from subcommand to function.

fn main() {}
