//! PCs over real TLS: the whole road, seen from the HTTP API, by the simulator and by a PC that is not ours.

mod attacks;
pub mod entra;
mod judge_pc;
mod road;
pub mod uploads;

use crate::harness::{House, Site, keys};
use bellwether_sim::{PcBuilder, WindowsPc};
use serde_json::{Value, json};

impl Site {
    /// An invitation for a PC; its link.
    pub async fn invite_pc(&self, account: &str) -> String {
        let wish = json!({ "platform": "windows", "account": account, "ownership": "company" });
        self.post("/invitations", wish).await.good()["link"].as_str().unwrap().to_owned()
    }

    pub fn discovery(&self) -> String {
        format!("{}/EnrollmentServer/Discovery.svc", self.url)
    }

    pub async fn pc_builder(&self) -> PcBuilder {
        WindowsPc::builder(self.http.clone()).keys(keys().await)
    }

    /// A PC that has enrolled and held its first session.
    pub async fn enrolled_pc(&self) -> WindowsPc {
        let mut pc = self.pc_builder().await.build().unwrap();
        pc.enroll_by_link(&self.invite_pc("ann@example.org").await).await.unwrap();
        pc.session().await.unwrap();
        pc
    }

    async fn show_pc(&self, pc: &WindowsPc) -> Value {
        self.get(&format!("/devices/{}", pc.serial())).await
    }

    pub async fn tell(&self, pc: &WindowsPc, intent: Value) -> String {
        let path = format!("/devices/{}/commands", pc.serial());
        self.post(&path, json!({ "intent": intent })).await.good()["id"].as_str().unwrap().to_owned()
    }
}

/// The code of a link.
pub fn code_of(link: &str) -> &str {
    link.rsplit('/').next().unwrap()
}

/// A file that begins as an MSI does.
pub fn msi(size: usize) -> Vec<u8> {
    let mut bytes = vec![0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
    bytes.extend((0..size).map(|i| (i % 251) as u8));
    bytes
}

/// Uploads a package; its id.
async fn upload(house: &House, bytes: Vec<u8>) -> String {
    upload_as(house, "tool.msi", bytes).await
}

/// Uploads a package under a name; its id.
pub async fn upload_as(site: &Site, name: &str, bytes: Vec<u8>) -> String {
    use secrecy::ExposeSecret as _;
    let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let query =
        format!("name={name}&kind=msi&product=%7B6F7CB29F-1319-4816-B345-0856916EB801%7D&version=1.2.3");
    let url = site.api(&format!("/packages?{query}"));
    let bearer = format!("Bearer {}", site.key.expose_secret());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/octet-stream")];
    let path = url.strip_prefix(&site.url).unwrap();
    let reply = site.raw(reqwest::Method::POST, path, &headers, bytes).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let made: Value = serde_json::from_slice(&reply.body).unwrap();
    made["id"].as_str().unwrap().to_owned()
}
