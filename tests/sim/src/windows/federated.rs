//! `Federated`: the sign-in page in Windows' own browser window (MS-MDE2 3.2).

use std::collections::BTreeMap;

use reqwest::Method;
use url::Url;

use super::WindowsPc;
use super::html::{self, Form};
use crate::{Error, Reply, Result};

/// Where Settings wants the token.
pub(super) const APP: &str = "ms-app://windows.immersivecontrolpanel";
/// Pages and redirects of one sign-in.
const MAX_STEPS: usize = 12;

impl WindowsPc {
    /// Opens the sign-in page, types in user name and code, and returns the token from the form that posts itself to
    /// the application.
    ///
    /// # Errors
    /// [`Error::Refused`] when a page has another status than 200, [`Error::Enrollment`] when the road does not end
    /// at a token.
    pub async fn sign_in(&self, service_url: &str, username: &str, code: &str) -> Result<String> {
        self.sign_in_with(service_url, APP, username, code).await
    }

    /// The same with another return address.
    ///
    /// # Errors
    /// As [`Self::sign_in`].
    pub async fn sign_in_with(
        &self,
        service_url: &str,
        appru: &str,
        username: &str,
        code: &str,
    ) -> Result<String> {
        let mut url = parse(service_url)?;
        url.query_pairs_mut().append_pair("appru", appru).append_pair("login_hint", username);
        let mut browser = Browser { pc: self, cookies: BTreeMap::new() };
        let mut reply = browser.get(&url).await?;
        let mut typed = 0;
        for _ in 0..MAX_STEPS {
            if matches!(reply.status, 301 | 302 | 303 | 307 | 308) {
                let location = reply.header("location").unwrap_or_default();
                url = url.join(location).map_err(|_| no("a redirect leads nowhere"))?;
                reply = browser.get(&url).await?;
                continue;
            }
            let page = reply.ok("sign-in page")?.text();
            let forms = html::forms(&page);
            if let Some(form) = forms.iter().find(|form| form.action == appru) {
                let token = form.inputs.iter().find(|input| input.name == "wresult");
                return match token {
                    Some(input) if form.method == "post" && !input.value.is_empty() => {
                        Ok(input.value.clone())
                    }
                    _ => Err(no("the form for the application has no wresult")),
                };
            }
            let wants_code = |form: &&Form| form.inputs.iter().any(|input| is_code(&input.kind, &input.name));
            let form = forms.iter().find(wants_code).or_else(|| forms.first());
            let form = form.ok_or_else(|| no("the sign-in page has no form"))?;
            typed += 1;
            if typed > 2 {
                return Err(no("the sign-in page does not accept the code"));
            }
            let target = url.join(&form.action).map_err(|_| no("a form leads nowhere"))?;
            let fields = fill(form, username, code);
            reply = browser.submit(&url, &target, form, &fields).await?;
            url = target;
        }
        Err(no("the sign-in does not end"))
    }
}

/// A browser window: it keeps cookies, for the one host that it talks to.
struct Browser<'p> {
    pc: &'p WindowsPc,
    cookies: BTreeMap<String, String>,
}

impl Browser<'_> {
    async fn get(&mut self, url: &Url) -> Result<Reply> {
        self.send(Method::GET, url, None).await
    }

    async fn submit(
        &mut self,
        page: &Url,
        target: &Url,
        form: &Form,
        fields: &[(String, String)],
    ) -> Result<Reply> {
        if form.method == "get" {
            let mut target = target.clone();
            target.query_pairs_mut().clear().extend_pairs(fields);
            return self.get(&target).await;
        }
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.send(Method::POST, target, Some((page, body))).await
    }

    async fn send(&mut self, method: Method, url: &Url, form: Option<(&Url, String)>) -> Result<Reply> {
        let http = &self.pc.http;
        let mut request = http
            .request(method, url.as_str())
            .header("user-agent", self.pc.hardware().edge())
            .header("accept", "text/html,*/*;q=0.8")
            .header("cxh-host", "MOSET");
        if !self.cookies.is_empty() {
            let pairs: Vec<String> =
                self.cookies.iter().map(|(name, value)| [name, "=", value].concat()).collect();
            request = request.header("cookie", pairs.join("; "));
        }
        if let Some((page, body)) = form {
            request = request
                .header("origin", page.origin().ascii_serialization())
                .header("referer", page.as_str())
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body);
        }
        let reply = http.send("sign-in page", request).await?;
        for (_, cookie) in reply.headers.iter().filter(|(name, _)| name == "set-cookie") {
            if let Some((name, value)) = cookie.split(';').next().and_then(|pair| pair.split_once('=')) {
                self.cookies.insert(name.trim().to_owned(), value.trim().to_owned());
            }
        }
        Ok(reply)
    }
}

/// What a person would type in, and what the page put there.
fn fill(form: &Form, username: &str, code: &str) -> Vec<(String, String)> {
    let value = |input: &html::Input| match input.kind.as_str() {
        "hidden" | "submit" | "checkbox" => input.value.clone(),
        kind if is_code(kind, &input.name) => code.to_owned(),
        _ => username.to_owned(),
    };
    form.inputs.iter().map(|input| (input.name.clone(), value(input))).collect()
}

fn is_code(kind: &str, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    kind == "password" || (kind == "text" && (name.contains("code") || name.contains("password")))
}

fn parse(url: &str) -> Result<Url> {
    Url::parse(url).map_err(|_| no("AuthenticationServiceUrl is no URL"))
}

fn no(reason: &str) -> Error {
    Error::Enrollment(format!("sign-in: {reason}"))
}
