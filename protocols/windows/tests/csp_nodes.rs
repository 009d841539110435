//! What we send to nodes, against the node catalogue.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;
use std::path::Path;

use bellwether_windows::csp::*;
use bellwether_windows::syncml::{Command, Format, Verb};

fn msi() -> Msi {
    Msi {
        product: "{6F7CB29F-1319-4816-B345-0856916EB801}".into(),
        version: "1.0.0".into(),
        url: "https://mdm.example/a.msi?a=1&b=<2>".into(),
        sha256: "ab".repeat(32),
        arguments: "/quiet".into(),
        timeout: 5,
        retries: 3,
        interval: 5,
    }
}

fn scep_of(scope: Scope) -> Scep {
    Scep {
        id: "wifi cert".into(),
        scope,
        urls: vec!["https://a/scep".into(), "https://b/scep".into()],
        challenge: "secret".into(),
        eku: vec!["1.3.6.1.5.5.7.3.2".into()],
        key_usage: 0xA0,
        subject: "CN=pc".into(),
        alternative_names: vec![(11, "user@example.org".into())],
        key_protection: 2,
        key_length: 2048,
        ca_sha1: "0f".repeat(20),
        renews: false,
    }
}

fn everything() -> Vec<Step> {
    let p = "Bellwether";
    let mut steps = vec![
        autopilot_reset(),
        lock(),
        reboot(),
        rename("PC-1").unwrap(),
        unenroll(p).unwrap(),
        scan(Scan::Quick),
        scan(Scan::Full),
        scan(Scan::Offline),
        update_signatures(),
        rotate_recovery_passwords("r1"),
        reset_laps_password(),
        renew_certificate(),
        collect_diagnostics("<Collection/>"),
        require_message_signing(p).unwrap(),
        push_package(p, "Pfn_1").unwrap(),
        uninstall_msi(&msi().product).unwrap(),
        uninstall_msix("Contoso.App_8wekyb3d8bbwe").unwrap(),
        trust_root(&"0a".repeat(20), b"der").unwrap(),
        distrust_root(&"0a".repeat(20)).unwrap(),
        wifi("Office / 5 GHz", "<WLANProfile/>").unwrap(),
        remove_wifi("Office").unwrap(),
        hardware_hash(),
        rotation_status(),
        trusted_roots(),
        msix_status("Contoso.App_8wekyb3d8bbwe").unwrap(),
        remove_firewall_rule("web").unwrap(),
        laps(&Laps { directory: 1, age: 30, length: 20, account: Some("admin".into()) }).unwrap(),
    ];
    use Wipe::*;
    let kinds =
        [Reset, KeepProvisioning, Protected, KeepUserData, Cloud, CloudKeepUserData, CloudKeepProvisioning];
    steps.extend(kinds.map(wipe));
    steps.extend(polling(p, &Polling { first: (5, 3), second: (8, 15), remaining: (0, 480) }).unwrap());
    steps.extend(ingest_admx("App", "File", "<policyDefinitions/>").unwrap());
    steps.extend(install_msi(&msi()).unwrap());
    steps.extend(msi_status(&msi().product).unwrap());
    steps.extend(install_msix("Contoso.App_8wekyb3d8bbwe", "https://mdm.example/a.msix").unwrap());
    for scope in [Scope::Device, Scope::User] {
        steps.extend(scep(&scep_of(scope)).unwrap());
        steps.extend(scep(&Scep { renews: true, ..scep_of(scope) }).unwrap());
        steps.push(pfx("p", scope, b"pfx", "pw").unwrap());
        steps.extend(scep_status("wifi cert", scope).unwrap());
        steps.push(vpn(scope, "Head office", "<VPNProfile/>").unwrap());
        steps.push(remove_vpn(scope, "Head office").unwrap());
        steps.push(policy(scope, "Camera", "AllowCamera", &PolicyValue::Int(0)).unwrap());
        steps.push(remove_policy(scope, "Camera", "AllowCamera").unwrap());
    }
    let rule = FirewallRule {
        id: "web".into(),
        name: "Web".into(),
        program: Some("C:\\a.exe".into()),
        protocol: Some(6),
        local_ports: Some("80,443".into()),
        remote_ports: Some("1-9".into()),
        remote_addresses: Some("10.0.0.0/8".into()),
        inbound: true,
        allow: true,
        profiles: 7,
    };
    steps.push(firewall_rule(&rule).unwrap());
    let window = Updates {
        defer_quality: Some(7),
        defer_feature: Some(30),
        deadline_quality: Some(3),
        deadline_feature: Some(7),
        grace: Some(2),
        active_hours: Some((8, 18)),
        automatic: Some(2),
        product: Some("Windows 11".into()),
        release: Some("24H2".into()),
    };
    steps.extend(updates(&window).unwrap());
    steps.extend(bitlocker());
    steps.extend(local_administrator("helper", "pw").unwrap());
    steps.extend(gets(DEVICE_INFORMATION));
    steps.extend(gets(POSTURE));
    steps.extend(enrollment_information(p).unwrap());
    steps.extend(software().unwrap());
    steps
}

#[test]
fn everything_we_emit_is_in_the_table() {
    let machine = Machine { build: Some((26200, 1)), home: false, user_signed_in: true };
    let steps = everything();
    for step in &steps {
        for command in step.commands() {
            assert!(find(&command.uri).is_some(), "{command:?}");
        }
        assert_eq!(check(step, &machine), Ok(()), "{step:?}");
    }
    for node in NODES.iter().filter(|node| !node.pattern.ends_with("WiFi/Profile/{}")) {
        let used = steps.iter().flat_map(Step::commands).any(|command| find(&command.uri) == Some(node));
        assert!(used, "{} is never sent", node.pattern);
    }
}

/// Nodes of the Accounts CSP, which the catalogue does not have.
const NOT_IN_CATALOGUE: &str = "./Device/Vendor/MSFT/Accounts/";

#[test]
fn the_table_agrees_with_the_catalogue() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/windows-csp-ddf.txt");
    if !path.is_file() {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: {} is not there\n", path.display()),
        );
        return;
    }
    let text = std::fs::read_to_string(path).unwrap();
    let mut catalogue = HashMap::new();
    for line in text.lines().filter(|line| line.starts_with("./")) {
        let Some((uri, rest)) = line.split_once(" | ") else { continue };
        let pattern: Vec<&str> =
            uri.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
        catalogue.entry(pattern.join("/")).or_insert(rest);
    }
    for node in NODES.iter().filter(|node| !node.pattern.starts_with(NOT_IN_CATALOGUE)) {
        let Some(facts) = catalogue.get(node.pattern) else {
            panic!("{} is not in the catalogue", node.pattern)
        };
        let format = facts.split(' ').next().unwrap();
        if let Some(ours) = &node.format {
            assert_eq!(ours.as_str(), format, "{}", node.pattern);
        }
        let access = facts.split_once('[').unwrap().1.split_once(']').unwrap().0;
        for verb in node.verbs.split(' ') {
            assert!(access.split(',').any(|known| known == verb), "{} does not take {verb}", node.pattern);
        }
        let head = facts.split(" -- ").next().unwrap();
        if let Some((_, builds)) = head.split_once("os>=10.0.") {
            let first: String = builds.chars().take_while(char::is_ascii_digit).collect();
            let first: u32 = first.parse().unwrap();
            let known = node.builds.iter().any(|(build, _)| *build == first);
            assert!(first <= 10586 || known, "{} came with {first}", node.pattern);
        }
    }
}

#[test]
fn refusals_say_why() {
    let old = Machine { build: Some((17763, 100)), ..Machine::default() };
    let refusal = check(&wipe(Wipe::Cloud), &old).unwrap_err();
    assert!(refusal.to_string().contains("needs Windows build 22621; this machine has build 17763"));
    let serviced = |revision| Machine { build: Some((22621, revision)), ..Machine::default() };
    assert!(check(&reset_laps_password(), &serviced(1000)).is_err());
    assert_eq!(check(&reset_laps_password(), &serviced(1480)), Ok(()));
    let home = Machine { home: true, ..Machine::default() };
    assert!(matches!(check(&install_msi(&msi()).unwrap()[0], &home), Err(Refusal::Edition { .. })));
    let user = vpn(Scope::User, "a", "<x/>").unwrap();
    assert!(matches!(check(&user, &Machine::default()), Err(Refusal::NoUser { .. })));
    let mut commands = user.commands().to_vec();
    commands.extend_from_slice(vpn(Scope::Device, "a", "<x/>").unwrap().commands());
    let machine = Machine { user_signed_in: true, ..Machine::default() };
    assert_eq!(check(&Step::Atomic(commands), &machine), Err(Refusal::Atomic));
    let wrong = NodeCommand { verb: Verb::Delete, ..lock().commands()[0].clone() };
    assert!(matches!(check(&wrong.into(), &machine), Err(Refusal::Verb { .. })));
}

/// `..` names the node above in a URI: to remove the VPN profile of that name could have removed all of them.
#[test]
fn a_name_never_leads_to_another_node() {
    for bad in [".", ".."] {
        assert!(segment("x", bad).is_err(), "{bad}");
        assert!(remove_vpn(Scope::Device, bad).is_err() && remove_wifi(bad).is_err(), "{bad}");
    }
    assert_eq!(segment("x", "a..b").unwrap(), "a..b");
    assert_eq!(segment("x", "...").unwrap(), "...");
}

#[test]
fn data_and_names_are_escaped_once() {
    let steps = install_msi(&msi()).unwrap();
    assert_eq!(steps[0].commands()[0].verb, Verb::Add);
    let exec = &steps[1].commands()[0];
    assert!(exec.uri.contains("/MSI/%7B6F7CB29F-1319-4816-B345-0856916EB801%7D/"));
    let data = exec.data.as_deref().unwrap();
    assert!(
        data.contains("<ContentURL>https://mdm.example/a.msi?a=1&amp;b=&lt;2&gt;</ContentURL>"),
        "{data}"
    );
    assert_eq!(segment("x", "Büro 1/2%").unwrap(), "B%C3%BCro%201%2F2%25");
    for bad in ["", "*", "a\0b"] {
        assert!(segment("x", bad).is_err());
    }
    let value = PolicyValue::Enabled(vec![("A".into(), "<\"&".into())]);
    let step = policy(Scope::Device, &admx_area("App", &["Root", "Leaf"]), "P", &value).unwrap();
    let command = &step.commands()[0];
    assert_eq!(command.uri, "./Device/Vendor/MSFT/Policy/Config/App~Policy~Root~Leaf/P");
    assert_eq!(command.data.as_deref(), Some("<enabled/><data id=\"A\" value=\"&lt;&quot;&amp;\"/>"));
    let Command::Request(request) = lock().to_command() else { panic!("no request") };
    assert_eq!((request.items.len(), request.items[0].data.clone()), (1, None));
    assert_eq!(Format::Chr.as_str(), "chr");
    assert!(rename("has space").is_err() && rename("12345").is_err() && rename("PC-1").is_ok());
    assert!(install_msi(&Msi { product: "{x}".into(), ..msi() }).is_err());
    assert!(polling("p", &Polling { first: (0, 3), second: (0, 0), remaining: (0, 0) }).is_err());
    assert!(!format!("{:?}", local_administrator("a", "hunter2").unwrap()).contains("hunter2"));
}
