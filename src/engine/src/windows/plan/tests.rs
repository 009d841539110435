//! Each intent as commands, and what is refused.

use super::*;
use crate::windows::judge::verbs_by_path;
use bellwether_windows::syncml::Data;
use serde_json::json;

fn machine() -> Machine {
    Machine { build: Some((26200, 1)), home: false, user_signed_in: false }
}

fn context(channel: ChannelKind) -> Context<'static> {
    Context {
        provider: "Bellwether",
        machine: machine(),
        ownership: Ownership::Company,
        channel,
        material: placeholder(),
    }
}

fn intent(json: serde_json::Value) -> Intent {
    serde_json::from_value(json).expect("an intent")
}

fn on_device(json: serde_json::Value) -> Result<Plan, Error> {
    plan(&intent(json), &context(ChannelKind::Device))
}

fn requests(plan: &Plan) -> Vec<&str> {
    plan.parts.iter().map(|part| part.request.as_str()).collect()
}

fn data(part: &PlannedPart, index: usize) -> &str {
    let found = raw::requests(&part.commands)[index].items[0].data.as_ref();
    found.and_then(Data::as_str).unwrap_or_default()
}

fn says(result: Result<Plan, Error>, part: &str) {
    match result {
        Err(Error::Invalid(text) | Error::CannotDo(text)) => assert!(text.contains(part), "{text}"),
        Err(other) => panic!("{other:?}"),
        Ok(plan) => panic!("planned as {:?}", requests(&plan)),
    }
}

#[test]
fn every_intent_of_windows_has_its_commands() {
    const D: &str = "./Device/Vendor/MSFT/";
    for (wanted, verb, node) in [
        (json!({"type": "lock", "message": "x"}), "Exec", "RemoteLock/Lock"),
        (json!({"type": "restart", "notify_user": true}), "Exec", "Reboot/RebootNow"),
        (json!({"type": "wipe"}), "Exec", "RemoteWipe/doWipe"),
        (json!({"type": "unenroll"}), "Exec", "DMClient/Provider/Bellwether/Unenroll"),
        (
            json!({"type": "remove-app", "identifier": "A_b"}),
            "Delete",
            "EnterpriseModernAppManagement/AppManagement/nonStore/A_b",
        ),
        (
            json!({"type": "remove-certificate", "thumbprint": "AB:".repeat(20)}),
            "Delete",
            "RootCATrustedCertificates/Root/ABABABABABABABABABABABABABABABABABABABAB",
        ),
        (json!({"type": "remove-wifi", "ssid": "a b"}), "Delete", "WiFi/Profile/a%20b"),
        (json!({"type": "set-wifi", "ssid": "a"}), "Replace", "WiFi/Profile/a/WlanXml"),
        (
            json!({"type": "set-vpn", "name": "v", "profile": "<VPNProfile/>"}),
            "Replace",
            "VPNv2/v/ProfileXML",
        ),
        (json!({"type": "remove-vpn", "name": "v"}), "Delete", "VPNv2/v"),
        (json!({"type": "encrypt-disk"}), "Replace", "BitLocker/AllowStandardUserEncryption"),
        (
            json!({"type": "set-laps", "directory": 1, "age_days": 30, "length": 20}),
            "Replace",
            "LAPS/Policies/PasswordLength",
        ),
        (
            json!({"type": "set-local-admin", "name": "helper"}),
            "Replace",
            "Accounts/Users/helper/LocalUserGroup",
        ),
        (
            json!({"type": "rotate-secret", "secret": "disk-recovery-key"}),
            "Exec",
            "BitLocker/RotateRecoveryPasswords",
        ),
        (
            json!({"type": "rotate-secret", "secret": "local-admin-password"}),
            "Exec",
            "LAPS/Actions/ResetPassword",
        ),
        (
            json!({"type": "ingest-admx", "app": "A", "file_id": "F", "admx": "<policyDefinitions/>"}),
            "Replace",
            "Policy/ConfigOperations/ADMXInstall/A/Policy/F",
        ),
        (json!({"type": "defender", "action": "full-scan"}), "Exec", "Defender/Scan"),
        (json!({"type": "defender", "action": "offline-scan"}), "Exec", "Defender/OfflineScan"),
        (json!({"type": "defender", "action": "update-signatures"}), "Exec", "Defender/UpdateSignature"),
        (
            json!({"type": "call-often"}),
            "Replace",
            "DMClient/Provider/Bellwether/Poll/IntervalForRemainingScheduledRetries",
        ),
        (
            json!({"type": "os-update", "version": "24H2"}),
            "Replace",
            "Policy/Config/Update/TargetReleaseVersion",
        ),
        (json!({"type": "renew-identity"}), "Exec", "CertificateStore/MY/WSTEP/Renew/RenewNow"),
        (
            json!({"type": "request-certificate", "id": "wifi"}),
            "Exec",
            "ClientCertificateInstall/SCEP/wifi/Install/Enroll",
        ),
        (
            json!({"type": "install-app", "app": {"source": "package",
            "id": "00000000-0000-0000-0000-000000000000"}}),
            "Exec",
            "EnterpriseDesktopAppManagement/MSI/%7B00000000-0000-0000-0000-000000000000%7D/DownloadInstall",
        ),
    ] {
        let plan = on_device(wanted.clone()).unwrap_or_else(|e| panic!("{wanted}: {e}"));
        assert_eq!(requests(&plan), [format!("{verb} {D}{node}")], "{wanted}");
        assert_eq!(plan.needs_password, wanted["type"] == "set-local-admin");
    }
    for (wanted, expected) in [
        (json!({"type": "rename", "name": "PC-1"}), "Replace ./DevDetail/Ext/Microsoft/DNSComputerName"),
        (
            json!({"type": "set-firewall-rule", "id": "w", "name": "Web", "protocol": 6, "local_ports": "80"}),
            "Replace ./Vendor/MSFT/Firewall/MdmStore/FirewallRules/w/Enabled",
        ),
        (
            json!({"type": "remove-firewall-rule", "id": "w"}),
            "Delete ./Vendor/MSFT/Firewall/MdmStore/FirewallRules/w",
        ),
        (
            json!({"type": "collect-diagnostics"}),
            "Exec ./Vendor/MSFT/DiagnosticLog/DiagnosticArchive/ArchiveDefinition",
        ),
    ] {
        let plan = on_device(wanted.clone()).unwrap_or_else(|e| panic!("{wanted}: {e}"));
        assert_eq!(requests(&plan), [expected]);
    }
}

#[test]
fn what_comes_later_is_watched() {
    let watch = |wanted| {
        let plan = on_device(wanted).expect("a plan");
        let part = &plan.parts[0];
        assert!(part.awaits);
        part.watch.join(" ")
    };
    let package = json!({"type": "install-app", "app": {"source": "package",
        "id": "00000000-0000-0000-0000-000000000000"}});
    let msi = watch(package.clone());
    assert!(msi.ends_with("%7D/Status") && !msi.contains(' '), "{msi}");
    let scep = "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/a";
    // Why, before whether: the status decides.
    assert_eq!(
        watch(json!({"type": "request-certificate", "id": "a"})),
        format!("{scep}/ErrorCode {scep}/Status")
    );
    let rotation = watch(json!({"type": "rotate-secret", "secret": "disk-recovery-key"}));
    assert!(rotation.ends_with("/RotateRecoveryPasswordsStatus"));
    let mut cx = context(ChannelKind::Device);
    cx.material.package.as_mut().expect("a package").kind = PackageKind::Msix;
    cx.material.package.as_mut().expect("a package").product = "A_b".into();
    let msix = plan(&intent(package.clone()), &cx).expect("a plan");
    assert!(msix.parts[0].watch[0].ends_with("/AppInstallation/A_b/Status"));
    cx.material.package = None;
    says(plan(&intent(package), &cx), "no longer in the store");
}

#[test]
fn wipes_are_what_was_asked_for_and_never_of_personal_machines() {
    for (word, node) in [
        ("reset", "doWipe"),
        ("keep-provisioning", "doWipePersistProvisionedData"),
        ("protected", "doWipeProtected"),
        ("keep-user-data", "doWipePersistUserData"),
        ("cloud", "doWipeCloud"),
        ("cloud-keep-user-data", "doWipeCloudPersistUserData"),
        ("cloud-keep-provisioning", "doWipeCloudPersistProvisionedData"),
        ("autopilot-reset", "AutomaticRedeployment/doAutomaticRedeployment"),
    ] {
        let wipe = json!({"type": "wipe", "windows": word});
        let expected = format!("Exec ./Device/Vendor/MSFT/RemoteWipe/{node}");
        assert_eq!(requests(&on_device(wipe.clone()).expect("a wipe")), [expected]);
        let personal = Context { ownership: Ownership::Personal, ..context(ChannelKind::Device) };
        says(plan(&intent(wipe), &personal), "somebody's own device");
    }
    says(on_device(json!({"type": "wipe", "return_to_service": true})), "autopilot-reset");
    says(on_device(json!({"type": "wipe", "preserve_data_plan": true})), "only Apple");
    let raw = b"<Exec><Item><Target><LocURI>./Vendor/MSFT/RemoteWipe/doWipe</LocURI></Target></Item></Exec>";
    assert!(raw_is_destructive(raw).expect("commands"));
    let raw = Intent::Raw { payload: raw.to_vec() };
    let personal = Context { ownership: Ownership::Personal, ..context(ChannelKind::Device) };
    says(plan(&raw, &personal), "somebody's own device");
    assert!(plan(&raw, &context(ChannelKind::Device)).is_ok());
}

#[test]
fn inventories_ask_what_the_machine_has() {
    let all = on_device(json!({"type": "refresh-inventory"})).expect("all");
    assert_eq!(
        requests(&all),
        ["Inventory device", "Inventory security", "Inventory apps", "Inventory certificates"]
    );
    let nodes = verbs_by_path(&all.parts[0].commands);
    assert!(nodes.iter().all(|(path, verb, _)| path.len() == 1 && *verb == Verb::Get));
    for node in ["/DeviceHardwareData", "/EntDMID", "/SwV"] {
        assert!(nodes.iter().any(|(_, _, uri)| uri.ends_with(node)), "{node}");
    }
    says(on_device(json!({"type": "refresh-inventory", "kinds": ["profiles"]})), "does not report profiles");
    let mut cx = context(ChannelKind::Device);
    cx.machine.home = true;
    let home = plan(&intent(json!({"type": "refresh-inventory"})), &cx).expect("Home answers too");
    assert_eq!(home.parts.len(), 4);
    let asked = home.parts.iter().flat_map(|part| verbs_by_path(&part.commands));
    assert!(!asked.into_iter().any(|(_, _, uri)| uri.contains("BitLocker") || uri.contains("/MSI")));
}

#[test]
fn a_setting_is_a_part_and_belongs_to_its_channel() {
    let settings = json!({"type": "configure", "settings": [
        {"area": "Update", "name": "ActiveHoursStart", "value": {"int": 8}},
        {"area": "A~Policy~B", "name": "P", "value": {"enabled": [["id", "<v>"]]}},
        {"area": "A", "name": "Q", "value": "disabled"},
        {"area": "A", "name": "R", "value": "remove"}
    ]});
    let plan = on_device(settings).expect("four parts");
    assert_eq!(plan.parts.len(), 4);
    assert_eq!(data(&plan.parts[1], 0), "<enabled/><data id=\"id\" value=\"&lt;v&gt;\"/>");
    assert_eq!(plan.parts[3].request, "Delete ./Device/Vendor/MSFT/Policy/Config/A/R");
    let user = json!({"type": "configure", "settings": [
        {"scope": "user", "area": "A", "name": "Q", "value": {"text": "x"}}]});
    says(on_device(user.clone()), "user's channel");
    let cx = context(ChannelKind::User);
    let on_user = super::plan(&intent(user), &cx).expect("for the user");
    assert_eq!(requests(&on_user), ["Replace ./User/Vendor/MSFT/Policy/Config/A/Q"]);
    says(super::plan(&intent(json!({"type": "lock"})), &cx), "device's channel");
    let vpn = json!({"type": "set-vpn", "name": "v", "profile": "<VPNProfile/>"});
    let vpn = super::plan(&intent(vpn), &cx).expect("for the user");
    assert_eq!(requests(&vpn), ["Replace ./User/Vendor/MSFT/VPNv2/v/ProfileXML"]);
}

#[test]
fn wifi_documents_are_made_or_checked() {
    let wifi = |passphrase: serde_json::Value| {
        on_device(
            json!({"type": "set-wifi", "ssid": "Caf\u{e9} <5>", "hidden": true, "passphrase": passphrase}),
        )
    };
    let plan = wifi(json!("pass & word")).expect("a network");
    let document = data(&plan.parts[0], 0);
    for part in [
        "<hex>436166C3A9203C353E</hex><name>Caf\u{e9} &lt;5&gt;</name>",
        "<nonBroadcast>true</nonBroadcast>",
        "<authentication>WPA2PSK</authentication><encryption>AES</encryption>",
        "<keyMaterial>pass &amp; word</keyMaterial>",
    ] {
        assert!(document.contains(part), "{document}");
    }
    let open = wifi(json!(null)).expect("an open network");
    assert!(data(&open.parts[0], 0).contains("<authentication>open</authentication>"));
    for bad in ["short", &"x".repeat(64), "caf\u{e9}-passphrase", "tab\tulator"] {
        says(wifi(json!(bad)), "8 to 63");
    }
    for (profile, words) in [
        ("<WLANProfile>", "no XML"),
        ("<VPNProfile/>", "root is WLANProfile"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><WLANProfile>&b;</WLANProfile>", "document type"),
    ] {
        says(on_device(json!({"type": "set-wifi", "ssid": "a", "profile": profile})), words);
    }
    let both =
        json!({"type": "set-wifi", "ssid": "a", "passphrase": "12345678", "profile": "<WLANProfile/>"});
    says(on_device(both), "not both");
}

#[test]
fn updates_name_a_release_that_exists() {
    let update = |version: Option<&str>, build: Option<u32>| {
        let mut cx = context(ChannelKind::Device);
        cx.machine.build = build.map(|build| (build, 1));
        let plan = super::plan(&Intent::OsUpdate { version: version.map(str::to_owned) }, &cx)?;
        Ok((data(&plan.parts[0], 0).to_owned(), data(&plan.parts[0], 1).to_owned()))
    };
    for (version, build, product, release) in [
        ("24H2", None, "Windows 11", "24H2"),
        ("Windows 11 24H2", Some(19045), "Windows 11", "24H2"),
        ("22H2", Some(19044), "Windows 10", "22H2"),
        ("22H2", Some(22000), "Windows 11", "22H2"),
        ("Windows 10 22H2", None, "Windows 10", "22H2"),
    ] {
        let found: Result<_, Error> = update(Some(version), build);
        assert_eq!(found.ok(), Some((product.to_owned(), release.to_owned())), "{version}");
    }
    for bad in [
        None,
        Some(""),
        Some("latest"),
        Some("11"),
        Some("Windows 12 24H2"),
        Some("Windows 10 24H2"),
        Some("22H2"),
        Some("24H3"),
        Some("\u{e9}H2"),
    ] {
        assert!(matches!(update(bad, None), Err(Error::Invalid(_))), "{bad:?}");
    }
    assert!(matches!(update(Some("Windows 10 22H2"), Some(26100)), Err(Error::CannotDo(_))));
}

#[test]
fn what_the_machine_lacks_is_said_in_words() {
    let mut cx = context(ChannelKind::Device);
    cx.machine = Machine { build: Some((17763, 1)), home: true, user_signed_in: false };
    says(plan(&intent(json!({"type": "wipe", "windows": "cloud"})), &cx), "needs Windows build 22621");
    says(plan(&intent(json!({"type": "encrypt-disk"})), &cx), "Windows Home");
    let raw = "<Exec><Item><Target><LocURI>./Device/Vendor/MSFT/RemoteWipe/doWipeCloud</LocURI></Target></Item></Exec>";
    says(plan(&Intent::Raw { payload: raw.into() }, &cx), "needs Windows build 22621");
}

#[test]
fn nonsense_is_refused() {
    for (bad, words) in [
        (json!({"type": "rename", "name": "a name"}), "name"),
        (json!({"type": "message", "text": "x"}), "cannot do"),
        (json!({"type": "install-certificate", "certificate": "AAAA"}), "not a certificate"),
        (json!({"type": "remove-certificate", "thumbprint": "xyz"}), "40 hexadecimal"),
        (json!({"type": "remove-app", "identifier": "{x}"}), "GUID"),
        (json!({"type": "install-identity", "id": "a", "pkcs12": "AAAA", "password": ""}), "PKCS#12"),
        (json!({"type": "configure", "settings": []}), "1 to 500"),
        (json!({"type": "configure", "settings": [{"area": "", "name": "a", "value": {"int": 1}}]}), "area"),
        (
            json!({"type": "configure", "settings": [{"area": "A", "name": "a", "value": {"text": "\u{1}"}}]}),
            "cannot be sent",
        ),
        (json!({"type": "ingest-admx", "app": "A", "file_id": "F", "admx": "<x/>"}), "policyDefinitions"),
        (json!({"type": "collect-diagnostics", "upload_url": "http://a"}), "HTTPS"),
        (json!({"type": "set-laps", "directory": 3, "age_days": 30, "length": 20}), "range"),
        (json!({"type": "set-local-admin", "name": "a/b"}), "name"),
        (json!({"type": "set-firewall-rule", "id": "a|b", "name": "n"}), "|"),
        (json!({"type": "rotate-secret", "secret": "recovery-lock"}), "Apple silicon"),
    ] {
        says(on_device(bad), words);
    }
}

#[test]
fn raw_commands_keep_to_their_channel() {
    let raw = |text: &str, channel| plan(&Intent::Raw { payload: text.into() }, &context(channel));
    let of = |uri: &str| {
        format!(
            "<Atomic><Replace><CmdID>2</CmdID><Item><Target><LocURI>{uri}</LocURI></Target>\
                 <Meta><Format>int</Format></Meta><Data>1</Data></Item></Replace></Atomic>"
        )
    };
    let user = of("./User/Vendor/MSFT/Policy/Config/A/B");
    says(raw(&user, ChannelKind::Device), "user's channel");
    says(raw(&of("./%55ser/Vendor/MSFT/Policy/Config/A/B"), ChannelKind::Device), "user's channel");
    let plan = raw(&user, ChannelKind::User).expect("for the user");
    assert_eq!(requests(&plan), ["Replace ./User/Vendor/MSFT/Policy/Config/A/B"]);
    assert_eq!(
        verbs_by_path(&plan.parts[0].commands).into_iter().map(|(path, ..)| path).collect::<Vec<_>>(),
        [vec![0], vec![0, 0]]
    );
    says(raw(&of("./Vendor/MSFT/Policy/Config/A/B"), ChannelKind::User), "device's channel");
    let get = "<Atomic><Get><Item><Target><LocURI>./DevDetail/SwV</LocURI></Target></Item></Get></Atomic>";
    says(raw(get, ChannelKind::Device), "no Get");
    says(raw("<plist/>", ChannelKind::Device), "is not sent");
    let long = of(&format!("./Vendor/MSFT/{}", "\u{e9}".repeat(200)));
    assert!(raw(&long, ChannelKind::Device).expect("long").parts[0].request.len() <= 250);
}

#[test]
fn parts_do_not_depend_on_material() {
    let cx = Context {
        material: Material {
            password: Some("another".into()),
            scep: Some(ScepMaterial {
                url: "https://mdm.example/scep".into(),
                challenge: "c".into(),
                subject: "CN=pc".into(),
                ca_sha1: "ab".repeat(20),
                renews: true,
            }),
            upload_url: Some("https://mdm.example/up".into()),
            request_id: "6f7cb29f-1319-4816-b345-0856916eb801".into(),
            package: None,
        },
        ..context(ChannelKind::Device)
    };
    for wanted in [
        json!({"type": "set-local-admin", "name": "helper"}),
        json!({"type": "request-certificate", "id": "wifi"}),
        json!({"type": "collect-diagnostics"}),
        json!({"type": "rotate-secret", "secret": "disk-recovery-key"}),
    ] {
        let real = plan(&intent(wanted.clone()), &cx).expect("with material");
        assert_eq!(requests(&real), requests(&on_device(wanted).expect("with placeholders")));
    }
}
