//! As much of HTML as a machine needs: links, and forms with their inputs.

/// A form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) action: String,
    /// In lower case; `get` unless it says otherwise.
    pub(super) method: String,
    pub(super) inputs: Vec<Input>,
}

/// An `input` or `button` with a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) name: String,
    /// In lower case.
    pub(super) kind: String,
    pub(super) value: String,
}

/// Where the `a` elements point to.
pub(super) fn links(page: &str) -> Vec<String> {
    let links = tags(page).into_iter().filter(|tag| tag.name == "a");
    links.filter_map(|tag| tag.attribute("href")).collect()
}

/// The forms.
pub(super) fn forms(page: &str) -> Vec<Form> {
    let mut forms: Vec<Form> = Vec::new();
    let mut inside = false;
    for tag in tags(page) {
        let text = |name: &str| tag.attribute(name).unwrap_or_default();
        match tag.name.as_str() {
            "form" => {
                let method = text("method").to_ascii_lowercase();
                let method = if method.is_empty() { "get".to_owned() } else { method };
                forms.push(Form { action: text("action"), method, inputs: Vec::new() });
                inside = true;
            }
            "/form" => inside = false,
            "input" | "button" if inside && !text("name").is_empty() => {
                let kind = text("type").to_ascii_lowercase();
                let kind = match (kind.as_str(), tag.name.as_str()) {
                    ("", "button") => "submit".to_owned(),
                    ("", _) => "text".to_owned(),
                    _ => kind,
                };
                let input = Input { name: text("name"), kind, value: text("value") };
                if let Some(form) = forms.last_mut() {
                    form.inputs.push(input);
                }
            }
            _ => {}
        }
    }
    forms
}

struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
}

impl Tag {
    fn attribute(&self, name: &str) -> Option<String> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }
}

fn tags(page: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once('<') {
        if let Some(comment) = after.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let end = after.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        let (attributes, after) = attributes(after);
        rest = after;
        let name = name.trim_end_matches('/').to_ascii_lowercase();
        if matches!(name.as_str(), "script" | "style") {
            let close = ["</", &name].concat();
            rest = rest.find(&close).and_then(|at| rest.get(at..)).unwrap_or("");
        }
        tags.push(Tag { name, attributes });
    }
    tags
}

/// The attributes of a tag, and what follows behind its `>`.
fn attributes(tag: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    let mut rest = tag.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
    while !rest.is_empty() && !rest.starts_with('>') {
        let end =
            rest.find(|c: char| c.is_ascii_whitespace() || matches!(c, '=' | '>')).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('=') {
            None => ("", after),
            Some(after) => value(after.trim_start()),
        };
        found.push((name.trim_end_matches('/').to_ascii_lowercase(), unescape(value)));
        rest = after.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if name.is_empty() && rest.len() == after.len() {
            // A stray character that is no attribute.
            rest = rest.get(1..).unwrap_or_default();
        }
    }
    (found, rest.strip_prefix('>').unwrap_or(rest))
}

fn value(text: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some(quoted) = text.strip_prefix(quote) {
            return quoted.split_once(quote).unwrap_or((quoted, ""));
        }
    }
    text.split_at(text.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(text.len()))
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let known = after.split_once(';').and_then(|(name, after)| Some((character(name)?, after)));
        match known {
            Some((character, after)) => {
                out.push(character);
                rest = after;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn character(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let number = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(number)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_forms_are_found() {
        let page = r#"<!doctype html><!-- <a href="no"> --><script>"<a href='no'>"</script>
            <p>1 < 2</p><a class=x href="ms-device-enrollment:?mode=mdm&amp;username=a%40b">x</a>
            <FORM method=POST action='/x?a=1&#38;b=2'><input type=hidden name=csrf value="q&quot;&#x27;">
            <input name="code" type="Password" required/><button name=go value=1>Go</button></FORM>
            <input name=outside><form></form>"#;
        assert_eq!(links(page), ["ms-device-enrollment:?mode=mdm&username=a%40b"]);
        let forms = forms(page);
        assert_eq!((forms[0].action.as_str(), forms[0].method.as_str()), ("/x?a=1&b=2", "post"));
        let inputs: Vec<_> =
            forms[0].inputs.iter().map(|i| (i.name.as_str(), i.kind.as_str(), i.value.as_str())).collect();
        assert_eq!(inputs, [("csrf", "hidden", "q\"'"), ("code", "password", ""), ("go", "submit", "1")]);
        assert_eq!((forms.len(), forms[1].method.as_str()), (2, "get"));
    }

    #[test]
    fn broken_pages_end() {
        for page in [
            "<",
            "<a",
            "<a href",
            "<a href=",
            "<a href=\"x",
            "<!--",
            "<script>",
            "< = = >",
            "<a ='x'>",
            "&#xffffffff;",
        ] {
            let _ = (links(page), forms(page), unescape(page));
        }
    }
}
