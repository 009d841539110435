//! The road that a device takes, over real TLS, seen from the HTTP API and from the command line.

use crate::harness::House;
use bellwether_sim::{AppleDevice, Family};
use serde_json::json;

const PROFILE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict>
<key>PayloadType</key><string>Configuration</string><key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>org.example.e2e</string>
<key>PayloadUUID</key><string>3F7D3D56-5E5A-4C5B-8B4B-2B1C4D1B7A11</string>
<key>PayloadDisplayName</key><string>Ann &amp; Co</string>
<key>PayloadContent</key><array><dict>
<key>PayloadType</key><string>com.apple.applicationaccess</string><key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>org.example.e2e.restrictions</string>
<key>PayloadUUID</key><string>9A8D3D56-5E5A-4C5B-8B4B-2B1C4D1B7A22</string>
<key>allowCamera</key><false/></dict></array>
</dict></plist>
"#;

fn request_types(device: &AppleDevice) -> Vec<String> {
    device.told().iter().map(|told| told.request_type.clone()).collect()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_is_locked_configured_and_seen() {
    let house = House::new().await;
    for family in [Family::Mac, Family::Iphone, Family::Ipad] {
        let mut device = house.device(family).await;
        device.enroll(&house.invite_for("ann@example.org").await).await.unwrap();
        device.poll().await.unwrap();
        let lock = house.send(&device, json!({ "type": "lock", "message": "Bring me back" })).await;
        let profile = house
            .send(&device, json!({ "type": "install-profile", "profile": base64(PROFILE.as_bytes()) }))
            .await;
        let inventory = house.send(&device, json!({ "type": "refresh-inventory" })).await;
        device.poll().await.unwrap();
        for id in [&lock, &profile, &inventory] {
            assert_eq!(house.state(id).await, "acknowledged", "{:#}", house.command(id).await);
        }
        assert_eq!(device.inventory().locks, 1);
        assert!(device.inventory().profiles.contains_key("org.example.e2e"));
        let shown = house.show(&device).await;
        assert_eq!(shown["device"]["hardware_id"], device.udid());
        assert_eq!(shown["device"]["serial"], device.serial());
        assert_eq!(shown["device"]["os_version"], device.hardware().os_version.as_str());
        assert_eq!(shown["device"]["product"], device.hardware().product_name.as_str());
        assert_eq!(shown["device"]["enrollment"]["state"], "active");
        assert_eq!(shown["device"]["enrollment"]["account"], "ann@example.org");
        let facts = shown["facts"].as_array().unwrap();
        assert!(facts.iter().any(|f| f["key"] == "os.version"), "{facts:#?}");
        let asked = request_types(&device);
        for request in
            ["DeviceInformation", "SecurityInfo", "InstalledApplicationList", "DeviceLock", "InstallProfile"]
        {
            assert!(asked.iter().any(|a| a == request), "{family:?}: {request} in {asked:?}");
        }
    }
    let list = house.get("/devices").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    let listed = house.cli_json(&["device", "list"]).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 3, "{listed:#}");
}
