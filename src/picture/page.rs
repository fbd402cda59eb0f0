//! The frame of a page that needs nothing else: no network, no script, light and dark.

use std::fmt::Write;

use super::scene::Scene;
use super::svg::{escaped, svg};

const STYLE: &str = include_str!("page.css");

/// From the document's type to its first heading; [`end`] closes it.
pub fn begin(title: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{0}</title><style>{STYLE}</style></head><body><main><h1>{0}</h1>",
        escaped(title)
    )
}

/// The end of what [`begin`] began.
pub fn end(page: String) -> String {
    page + "</main></body></html>\n"
}

/// The heading of a part of a long page, to be pointed at by its key.
pub fn chapter(out: &mut String, key: &str, title: &str) {
    let _ = write!(out, "<h2 class=\"part\" id=\"{}\">{}</h2>", escaped(key), escaped(title));
}

/// What a page has not got, and why.
pub fn missing(out: &mut String, why: &str) {
    let _ = write!(out, "<p class=\"missing\">{}</p>", escaped(why));
}

/// A heading, a paragraph and a chart.
pub fn section(out: &mut String, title: &str, lede: &str, scene: &Scene) {
    let _ = write!(
        out,
        "<section><h2>{}</h2><p>{}</p><figure>{}</figure></section>",
        escaped(title),
        escaped(lede),
        svg(scene, title)
    );
}

/// A row of a table; `tag` is `th` or `td`.
pub fn row<T: AsRef<str>>(out: &mut String, tag: &str, texts: impl IntoIterator<Item = T>) {
    out.push_str("<tr>");
    for text in texts {
        let _ = write!(out, "<{tag}>{}</{tag}>", escaped(text.as_ref()));
    }
    out.push_str("</tr>");
}
