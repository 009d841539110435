//! A site with something in every table that sites have.

use crate::harness::{House, Site, keys};
use crate::judges::push_certificate;
use crate::rows::{self, Tables};
use crate::windows::{msi, upload_as};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_sim::{AppleDevice, Family, User, WindowsPc};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A site's devices, and what else its people hold.
pub struct Furniture {
    pub mac: AppleDevice,
    pub user: User,
    pub phone: AppleDevice,
    pub pc: WindowsPc,
    /// Name and password with which PCs enroll.
    pub account: (String, String),
    /// The path under which the PC fetches a package.
    pub package: String,
    /// The path to which the PC may send a file.
    pub upload: String,
    /// An open invitation: its link and its short code.
    pub invitation: (String, String),
    pub idempotency_key: String,
}

/// A second site of a server, with an administrator of its own.
pub async fn another_site(house: &House, name: &str) -> Site {
    let id = house.engine().create_site(name).await.unwrap().to_string();
    administrator(house, &id, name).await
}

/// Somebody who may do everything in one site, and nothing elsewhere.
pub async fn administrator(house: &House, site: &str, name: &str) -> Site {
    let there = Site { site_id: Some(site.to_owned()), ..house.site.clone() };
    let everything = house.get("/keys").await[0]["grants"].clone();
    let everything = everything.as_array().unwrap().iter().map(|grant| grant.as_str().unwrap());
    let grants: Vec<String> = everything.map(|grant| grant.replace("@server", &format!("@{site}"))).collect();
    assert!(grants.len() > 10);
    let wish = json!({ "name": format!("administrator of {name}"), "grants": grants });
    let secret = there.post("/keys", wish).await.good()["secret"].as_str().unwrap().to_owned();
    Site { key: secret.into(), ..there }
}

/// Does everything once that leaves something behind. `tag` is in every name.
pub async fn furnish(site: &Site, tag: &str, topic: &str) -> Furniture {
    let (certificate, key) = push_certificate(topic);
    site.post("/push/apple", json!({ "certificate": certificate, "key": key })).await.good();
    let (mac, user) = furnish_mac(site, tag).await;
    let person = json!({ "account": format!("phone.{tag}@example.org"), "name": format!("Phil of {tag}") });
    let builder = AppleDevice::builder(Family::Iphone, site.http.clone()).keys(keys().await);
    let mut phone = builder.name(format!("Phone of {tag}")).build().unwrap();
    phone.enroll(&site.invite_with(person).await).await.unwrap();
    phone.poll().await.unwrap();
    let (pc, account, package, upload) = furnish_pc(site, tag).await;
    let job = json!({ "devices": [mac.serial(), phone.serial()], "intent": { "type": "refresh-inventory" } });
    site.post("/commands", job).await.good();
    let wish = json!({ "platform": "apple", "test_only": true, "short_code": true, "account": format!("open.{tag}@example.org") });
    let made = site.post("/invitations", wish).await.good();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let invitation = (text("link"), text("short_code"));
    Furniture {
        mac,
        user,
        phone,
        pc,
        account,
        package,
        upload,
        invitation,
        idempotency_key: format!("once-{tag}"),
    }
}

async fn furnish_mac(site: &Site, tag: &str) -> (AppleDevice, User) {
    let person = json!({ "account": format!("mac.{tag}@example.org"), "name": format!("Ann of {tag}") });
    let builder = AppleDevice::builder(Family::Mac, site.http.clone()).keys(keys().await);
    let mut mac = builder.name(format!("Mac of {tag}")).build().unwrap();
    mac.enroll(&site.invite_with(person).await).await.unwrap();
    mac.poll().await.unwrap();
    mac.set_bootstrap_token(Some(format!("bootstrap of {tag}").as_bytes())).await.unwrap();
    let user = User::invent(&format!("ann-{tag}")).unwrap();
    mac.user_token_update(&user).await.unwrap().ok("TokenUpdate").unwrap();
    let path = format!("/devices/{}/commands", mac.serial());
    let lock = json!({ "intent": { "type": "lock", "message": format!("call {tag}") } });
    let once = format!("once-{tag}");
    site.call(Method::POST, &path, Some(lock), &[("idempotency-key", &once)]).await.good();
    mac.poll().await.unwrap();
    // Two that wait, the first of them handed over.
    site.send(&mac, json!({ "type": "rename", "name": format!("renamed by {tag}") })).await;
    site.send(&mac, json!({ "type": "restart" })).await;
    mac.idle().await.unwrap().ok("idle").unwrap();
    (mac, user)
}

async fn furnish_pc(site: &Site, tag: &str) -> (WindowsPc, (String, String), String, String) {
    let name = format!("kiosk-{tag}");
    let wish = json!({
        "platform": "windows", "name": name, "account": format!("pc.{tag}@example.org"), "cap": 50,
        "ownership": "company", "expires_in_seconds": 3600,
    });
    let made = site.post("/enrollment-accounts", wish).await.good();
    let account = (name, made["password"].as_str().unwrap().to_owned());
    let mut pc = site.pc_builder().await.name(format!("PC-of-{tag}")).build().unwrap();
    pc.enroll(&site.discovery(), &account.0, &account.1).await.unwrap();
    pc.session().await.unwrap();
    let settings = json!([{ "area": "Update", "name": "ActiveHoursStart", "value": { "int": 8 } }]);
    site.tell(&pc, json!({ "type": "configure", "settings": settings })).await;
    site.tell(&pc, json!({ "type": "request-certificate", "id": format!("wifi of {tag}") })).await;
    pc.session().await.unwrap();
    pc.session().await.unwrap();
    let id = upload_as(site, &format!("tool-{tag}.msi"), msi(20_000)).await;
    let (_, sent) = site.told_where_to(&mut pc).await;
    assert_eq!(site.put(&sent, format!("PK diagnostics of {tag}").as_bytes()).await, 201);
    let (_, upload) = site.told_where_to(&mut pc).await;
    site.tell(&pc, json!({ "type": "install-app", "app": { "source": "package", "id": id } })).await;
    let told = pc.session().await.unwrap();
    let job = told.iter().find_map(|t| t.data.clone().filter(|d| d.contains("MsiInstallJob"))).unwrap();
    let url = job.split("<ContentURL>").nth(1).unwrap().split('<').next().unwrap();
    let package = url.strip_prefix(&site.url).unwrap().to_owned();
    site.tell(
        &pc,
        json!({ "type": "set-wifi", "ssid": format!("net of {tag}"), "passphrase": "passphrase1" }),
    )
    .await;
    (pc, account, package, upload)
}

/// The rows of a site once nothing moves any more: sealed, flushed, every job done.
pub async fn at_rest(house: &House, site: &str) -> Tables {
    let until = Instant::now() + Duration::from_secs(40);
    let mut before = rows::of_site(&rows::all(house), site);
    loop {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let now = rows::of_site(&rows::all(house), site);
        let sealed = now["audit"].iter().chain(&now["events"]).all(|row| row["position"] != Value::Null);
        let moved = rows::differences(&before, &now);
        if sealed && moved.is_empty() {
            return now;
        }
        assert!(Instant::now() < until, "{moved:#?}");
        before = now;
    }
}

/// Standard base64.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
