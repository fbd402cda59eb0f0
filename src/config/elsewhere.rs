//! What other programs' configuration files call the keys of ours.

/// Words of other programs' files, and what they are called here.
pub const ELSEWHERE: &[(&str, &str)] = &[
    ("key", "key_env"),
    ("api_key", "key_env"),
    ("apikey", "key_env"),
    ("token", "key_env"),
    ("api_base", "base_url"),
    ("url", "base_url"),
    ("endpoint", "base_url"),
    ("host", "listen"),
    ("port", "listen"),
    ("bind", "listen"),
    ("address", "listen"),
    ("timeout", "waits"),
    ("type", "kind"),
    ("provider", "kind"),
    ("location", "place"),
    ("cost", "price"),
    ("models", "backends"),
    ("providers", "backends"),
    ("routing", "policy"),
    ("router", "policy"),
    ("logging", "journal"),
    ("name", "tenant"),
];
