//! Requests that fit the API's own document, with somebody else's ids wherever an id, a name or a text goes.

use super::furniture::base64;
use crate::attacks::Noise;
use serde_json::{Map, Value, json};

/// One operation of the document.
#[derive(Clone)]
pub struct Operation {
    pub method: String,
    /// Below `/api/v1`.
    pub path: String,
    described: Value,
}

impl Operation {
    /// A file, as it is, instead of JSON.
    pub fn takes_bytes(&self) -> bool {
        self.described["requestBody"]["content"]["application/octet-stream"].is_object()
    }
}

/// A request, ready to be sent.
pub struct Wish {
    /// Below `/api/v1`, with its query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Value>,
}

/// What stands in requests.
pub struct Pool {
    /// Ids of the site that is not to be touched.
    pub theirs: Vec<String>,
    /// Its names, serial numbers and other texts.
    pub their_texts: Vec<String>,
    /// Ids and names that the caller may use.
    pub mine: Vec<String>,
    pub their_site: String,
    pub my_site: String,
    pub their_idempotency_key: String,
    /// PEM of a certificate and its key for a topic of theirs.
    pub push: (String, String),
}

impl Pool {
    fn id(&self, noise: &mut Noise) -> String {
        let from = if noise.below(10) < 7 { &self.theirs } else { &self.mine };
        from[noise.below(from.len())].clone()
    }

    pub fn text(&self, noise: &mut Noise) -> String {
        match noise.below(10) {
            0..5 => self.their_texts[noise.below(self.their_texts.len())].clone(),
            5..8 => self.theirs[noise.below(self.theirs.len())].clone(),
            _ => self.mine[noise.below(self.mine.len())].clone(),
        }
    }
}

/// Every operation of the document that the server gives out.
pub fn operations(document: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, described) in item.as_object().unwrap() {
            let path = path.strip_prefix("/api/v1").unwrap().to_owned();
            all.push(Operation { method: method.to_uppercase(), path, described: described.clone() });
        }
    }
    all
}

/// Fills an operation in.
pub fn invent(operation: &Operation, document: &Value, pool: &Pool, noise: &mut Noise) -> Wish {
    let mut path = operation.path.clone();
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let mut headers = Vec::new();
    for parameter in operation.described["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        match parameter["in"].as_str().unwrap() {
            "path" => {
                let value = if name == "device" { pool.text(noise) } else { pool.id(noise) };
                let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
                path = path.replace(&format!("{{{name}}}"), &value);
            }
            "query" if name == "site" => match noise.below(20) {
                0..3 => drop(query.append_pair("site", &pool.their_site)),
                3..12 => drop(query.append_pair("site", &pool.my_site)),
                _ => {}
            },
            "query" => {
                if parameter["required"] == true || noise.below(2) == 0 {
                    query.append_pair(name, &query_value(name, parameter, pool, noise));
                }
            }
            "header" => {
                let key =
                    if noise.below(2) == 0 { pool.their_idempotency_key.clone() } else { pool.id(noise) };
                if noise.below(2) == 0 {
                    headers.push((name.to_owned(), key));
                }
            }
            other => panic!("{path}: a parameter in {other}"),
        }
    }
    for (name, value) in [
        ("x-bellwether-site", pool.their_site.clone()),
        ("x-forwarded-for", pool.id(noise)),
        ("cookie", format!("site={}", pool.their_site)),
        ("x-http-method-override", "DELETE".to_owned()),
    ] {
        if noise.below(12) == 0 {
            headers.push((name.to_owned(), value));
        }
    }
    let query = query.finish();
    if !query.is_empty() {
        path = format!("{path}?{query}");
    }
    let schema = &operation.described["requestBody"]["content"]["application/json"]["schema"];
    let body = schema.is_object().then(|| value("", schema, document, pool, noise));
    Wish { path, headers, body }
}

fn query_value(name: &str, parameter: &Value, pool: &Pool, noise: &mut Noise) -> String {
    use base64::Engine as _;
    let cursor = |id: String| {
        let bytes =
            id.parse::<uuid::Uuid>().map_or_else(|_| id.clone().into_bytes(), |id| id.as_bytes().to_vec());
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    };
    match name {
        "cursor" => cursor(pool.id(noise)),
        "limit" => "500".to_owned(),
        "platform" => ["apple", "windows"][noise.below(2)].to_owned(),
        "kind" => "msi".to_owned(),
        "product" => "{6F7CB29F-1319-4816-B345-0856916EB801}".to_owned(),
        "version" => "1.2.3".to_owned(),
        "state" => ["active", "queued", "ended", "acknowledged"][noise.below(4)].to_owned(),
        _ if parameter["schema"].to_string().contains("uuid") => pool.id(noise),
        _ => pool.text(noise),
    }
}

/// A value of a schema. Optional fields come and go.
fn value(name: &str, schema: &Value, document: &Value, pool: &Pool, noise: &mut Noise) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return value(
            name,
            &document["components"]["schemas"][reference.rsplit('/').next().unwrap()],
            document,
            pool,
            noise,
        );
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(all) = schema[choice].as_array() {
            let kind = |one: &Value| one["type"] == "null";
            let all: Vec<&Value> = all.iter().filter(|one| !kind(one)).collect();
            return value(name, all[noise.below(all.len())], document, pool, noise);
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        return words[noise.below(words.len())].clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => {
            kinds.iter().find_map(|kind| kind.as_str().filter(|kind| *kind != "null")).unwrap()
        }
        one => one.as_str().unwrap_or("object"),
    };
    match kind {
        "object" => {
            let mut made = Map::new();
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                if required.iter().any(|one| one == name) || noise.below(2) == 0 {
                    made.insert(name.clone(), value(name, field, document, pool, noise));
                }
            }
            Value::Object(made)
        }
        "array" => {
            let count = 1 + noise.below(3);
            (0..count).map(|_| value(name, &schema["items"], document, pool, noise)).collect()
        }
        "boolean" => json!(noise.below(2) == 0),
        "integer" => match name {
            "expires_in_seconds" => json!(600),
            "expires_in_days" => json!(2),
            _ => json!(1 + noise.below(3)),
        },
        _ => text(name, schema, pool, noise),
    }
}

fn text(name: &str, schema: &Value, pool: &Pool, noise: &mut Noise) -> Value {
    let made = match name {
        "platform" => ["apple", "windows"][noise.below(2)].to_owned(),
        "ownership" => ["company", "personal"][noise.below(2)].to_owned(),
        "grants" => {
            let site = if noise.below(3) == 0 { &pool.their_site } else { &pool.my_site };
            format!("{}@{site}", ["device:read", "secret:reveal", "audit:read", "key:write"][noise.below(4)])
        }
        "certificate" if !schema.to_string().contains("base64") => pool.push.0.clone(),
        "key" => pool.push.1.clone(),
        "upload_url" | "url" => format!("https://127.0.0.1:1/{}", pool.id(noise)),
        _ if schema["format"] == "uuid" => pool.id(noise),
        _ if schema["contentEncoding"] == "base64" => base64(pool.text(noise).as_bytes()),
        _ => pool.text(noise),
    };
    json!(made)
}
