//! The few calls of the server's API that a load test needs.

use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::{Error, Http, Reply, Result};

/// A client with an API key.
#[derive(Clone)]
pub struct Api {
    http: Http,
    base: String,
    key: SecretString,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Api {
    /// A client for the server at `base` (`https://localhost:8443`) with a key `bw_…`.
    #[must_use]
    pub fn new(http: Http, base: &str, key: SecretString) -> Self {
        Self { http, base: base.trim_end_matches('/').to_owned(), key }
    }

    /// Makes a test-only invitation for a device of a platform, `apple` or `windows`; returns its link. It is for an
    /// account: without one the page of Windows has no button to press.
    ///
    /// # Errors
    /// When the server refuses, or answers without a link.
    pub async fn invite(&self, platform: &str) -> Result<String> {
        let body = json!({ "platform": platform, "account": "load@example.org", "test_only": true });
        let answer = self.call(Method::POST, "/api/v1/invitations", Some(&body)).await?;
        let link = answer.get("link").and_then(Value::as_str).map(str::to_owned);
        link.ok_or_else(|| Error::Channel("the invitation has no link".to_owned()))
    }

    /// The server's id of the device with this serial number, once it is known.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn device_id(&self, serial: &str) -> Result<Option<String>> {
        let answer = self.call(Method::GET, &format!("/api/v1/devices?search={serial}"), None).await?;
        Ok(find_device(&answer, serial))
    }

    /// Queues a command for a device. `intent` is what is wanted: `{"type": "lock"}`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn command(&self, device_id: &str, intent: &Value) -> Result<()> {
        let path = format!("/api/v1/devices/{device_id}/commands");
        self.call(Method::POST, &path, Some(&json!({ "intent": intent }))).await.map(|_| ())
    }

    /// One call; the answer as JSON.
    ///
    /// # Errors
    /// [`Error::Refused`] for a status that is not 2xx.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = self
            .http
            .request(method, &format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.key.expose_secret()));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let reply: Reply = self.http.send("API", request).await?;
        if !(200..300).contains(&reply.status) {
            let body = reply.text().chars().take(500).collect();
            return Err(Error::Refused { what: "API", status: reply.status, body });
        }
        if reply.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&reply.body).map_err(|error| Error::Channel(format!("API: {error}")))
    }
}

/// Finds the device in a page of devices, whatever the page's list is called.
fn find_device(page: &Value, serial: &str) -> Option<String> {
    let list = match page {
        Value::Array(list) => list,
        Value::Object(fields) => fields.values().find_map(Value::as_array)?,
        _ => return None,
    };
    list.iter()
        .find(|device| {
            let is = |key: &str| device.get(key).and_then(Value::as_str) == Some(serial);
            is("serial") || is("serial_number") || is("hardware_id") || list.len() == 1
        })
        .and_then(|device| device.get("id"))
        .and_then(Value::as_str)
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_in_a_page() {
        let page =
            json!({ "devices": [{ "id": "a", "serial": "X" }, { "id": "b", "serial": "Y" }], "next": null });
        assert_eq!(find_device(&page, "Y").as_deref(), Some("b"));
        assert_eq!(find_device(&page, "Z"), None);
        assert_eq!(find_device(&json!({ "items": [] }), "Z"), None);
    }
}
