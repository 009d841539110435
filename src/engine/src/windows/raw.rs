//! SyncML that an administrator wrote.

use crate::error::Error;
use bellwether_windows::syncml::reader::{self, Limits};
use bellwether_windows::syncml::{Command, Request, Verb};

/// More than enough for what a person writes.
const LIMITS: Limits =
    Limits { max_bytes: 1024 * 1024, max_depth: 48, max_nodes: 20_000, max_attributes: 16 };
const MAX_COMMANDS: usize = 200;
/// Groups in groups, as a session sends them.
const MAX_NESTING: usize = 3;

/// Reads a payload: commands, or a whole message around them. Numbers are taken away: the session gives its own.
pub(super) fn commands(payload: &[u8]) -> Result<Vec<Command>, Error> {
    let read = reader::read_commands(payload, &LIMITS)
        .map_err(|e| Error::Invalid(format!("these are no SyncML commands: {e}")))?;
    let commands = tidy(read, 0)?;
    if count(&commands) > MAX_COMMANDS {
        return Err(Error::Invalid(format!("at most {MAX_COMMANDS} commands travel together")));
    }
    Ok(commands)
}

/// Whether an admin needs leave to destroy for this raw payload: it wipes, or ends management.
pub(crate) fn raw_is_destructive(payload: &[u8]) -> Result<bool, Error> {
    Ok(requests(&commands(payload)?).into_iter().any(|request| wipes(request) || ends_management(request)))
}

/// Every request, those in groups included.
pub(super) fn requests(commands: &[Command]) -> Vec<&Request> {
    commands
        .iter()
        .flat_map(|command| match command {
            Command::Request(request) => vec![request],
            Command::Group(group) => requests(&group.commands),
            _ => Vec::new(),
        })
        .collect()
}

/// The node of a request that [`commands`] let pass.
pub(super) fn node(request: &Request) -> &str {
    request.items.first().and_then(|item| item.uri()).unwrap_or_default()
}

/// RemoteWipe CSP, Autopilot reset included.
pub(super) fn wipes(request: &Request) -> bool {
    segments(node(request)).iter().any(|name| {
        matches!(name.as_str(), "remotewipe" | "automaticredeployment" | "doautomaticredeployment")
            || name.starts_with("dowipe")
    })
}

/// The Unenroll node, or the removal of the management account below which everything hangs.
fn ends_management(request: &Request) -> bool {
    let names = segments(node(request));
    let below = |tree: &str| names.iter().any(|name| name == tree);
    // Deleting the account or the identity ends management; writing to the account can lead the PC elsewhere.
    names.iter().any(|name| name == "unenroll")
        || request.verb != Verb::Get && (below("dmacc") || below("certificatestore") && below("my"))
        || request.verb == Verb::Delete && below("dmclient")
        || request.verb != Verb::Get && names.iter().any(|name| name.starts_with("managementserv"))
}

/// The names of a LocURI in lower case, with escapes undone as often as somebody may have escaped them.
pub(super) fn segments(uri: &str) -> Vec<String> {
    let mut text = uri.to_owned();
    for _ in 0..4 {
        let decoded = percent_decode(&text);
        if decoded == text {
            break;
        }
        text = decoded;
    }
    text.to_lowercase()
        .split(['/', '\\', '?', '#'])
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Undoes `%XX`; what is no escape stays.
pub(super) fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn count(commands: &[Command]) -> usize {
    requests(commands).len()
}

fn tidy(commands: Vec<Command>, depth: usize) -> Result<Vec<Command>, Error> {
    if commands.is_empty() {
        return Err(Error::Invalid("there is no command in it".into()));
    }
    if depth > MAX_NESTING {
        return Err(Error::Invalid("groups are nested too deeply".into()));
    }
    let mut out = Vec::new();
    for command in commands {
        match command {
            Command::Request(request) => out.extend(one_item_each(request)?),
            Command::Group(mut group) => {
                group.cmd_id.clear();
                group.no_resp = false;
                group.commands = tidy(group.commands, depth + 1)?;
                out.push(Command::Group(group));
            }
            other => {
                return Err(Error::Invalid(format!(
                    "\"{}\" is not sent: only Get, Add, Replace, Delete, Exec, Atomic and Sequence",
                    other.name().chars().filter(|c| c.is_ascii_alphanumeric()).take(40).collect::<String>()
                )));
            }
        }
    }
    Ok(out)
}

/// A session sends one item by command, and waits for each status.
fn one_item_each(request: Request) -> Result<Vec<Command>, Error> {
    let Request { verb, meta, items, .. } = request;
    if items.is_empty() {
        return Err(Error::Invalid(format!("{} has no Item", verb.as_str())));
    }
    items
        .into_iter()
        .map(|mut item| {
            item.source = None;
            let uri = item.target.as_ref().map_or("", |target| target.uri.trim());
            // Nodes begin with a dot; a name alone would be read from a place that nobody meant.
            if !uri.starts_with("./") || uri.len() > 1024 || uri.chars().any(char::is_control) {
                return Err(Error::Invalid("each Item has a Target whose LocURI begins with ./".into()));
            }
            if item.more {
                return Err(Error::Invalid("MoreData is the session's to say; give the data whole".into()));
            }
            if let Some(target) = &mut item.target {
                target.uri = uri_trimmed(&target.uri);
            }
            let mut request = Request::new(verb, item);
            request.meta = meta.clone();
            Ok(Command::Request(request))
        })
        .collect()
}

fn uri_trimmed(uri: &str) -> String {
    uri.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{commands, node, requests};
    use crate::error::Error;
    use crate::windows::plan::raw_is_destructive;

    fn exec(uri: &str) -> String {
        format!("<Exec><CmdID>7</CmdID><Item><Target><LocURI>{uri}</LocURI></Target></Item></Exec>")
    }

    #[test]
    fn commands_are_read_with_and_without_a_message_around_them() {
        let get = "<Get><Item><Target><LocURI> ./DevDetail/SwV </LocURI></Target></Item>\
                   <Item><Target><LocURI>./DevDetail/FwV</LocURI></Target></Item></Get>";
        let whole = format!(
            "<SyncML xmlns=\"SYNCML:SYNCML1.2\"><SyncHdr><Cred><Data>x</Data></Cred></SyncHdr><SyncBody>{get}<Final/></SyncBody></SyncML>"
        );
        let bare = commands(get.as_bytes()).expect("a fragment");
        assert_eq!(bare, commands(whole.as_bytes()).expect("a message"));
        assert_eq!(
            requests(&bare).into_iter().map(node).collect::<Vec<_>>(),
            ["./DevDetail/SwV", "./DevDetail/FwV"]
        );
        assert!(bare.iter().all(|command| command.cmd_id().is_empty()));
        let group = format!("<Atomic><NoResp/>{}<Sequence>{get}</Sequence></Atomic>", exec("./a/b"));
        let group = commands(group.as_bytes()).expect("a group");
        assert_eq!((group.len(), requests(&group).len()), (1, 3));
        assert!(group.iter().all(|command| !command.no_resp() && command.cmd_id().is_empty()));
    }

    #[test]
    fn hostile_payloads_are_refused() {
        let deep = format!("{}{}{}", "<Sequence>".repeat(5), exec("./a"), "</Sequence>".repeat(5));
        let many = exec("./a").repeat(201);
        let nested = "<x>".repeat(100_000);
        for bad in [
            "",
            "   ",
            "Get",
            "<Get>",
            "</SyncBody><SyncBody>",
            "<Final/>",
            "<Atomic/>",
            "<Get/>",
            "<Get><Item><Source><LocURI>./a</LocURI></Source></Item></Get>",
            "<Exec><Item><Target><LocURI>RemoteWipe</LocURI></Target></Item></Exec>",
            "<Status><CmdID>1</CmdID><Data>200</Data></Status>",
            "<Alert><CmdID>1</CmdID><Data>1201</Data></Alert>",
            "<Copy><CmdID>1</CmdID></Copy>",
            "<!DOCTYPE a [<!ENTITY b 'c'>]><Get>&b;</Get>",
            "<SyncML><SyncHdr/></SyncML>",
            "<Add><Item><Target><LocURI>./a</LocURI></Target><Data>x</Data><MoreData/></Item></Add>",
            &deep,
            &many,
            &nested,
        ] {
            let short: String = bad.chars().take(60).collect();
            assert!(matches!(commands(bad.as_bytes()), Err(Error::Invalid(_))), "{short}");
        }
        assert!(commands(&[0xFF, 0xFE]).is_err());
        assert!(commands(&vec![b' '; 2 * 1024 * 1024]).is_err());
    }

    #[test]
    fn destruction_is_seen_however_it_is_spelt() {
        for uri in [
            "./Device/Vendor/MSFT/RemoteWipe/doWipe",
            "./vendor/msft/REMOTEWIPE/dowipeprotected",
            "./Vendor/MSFT/Remote%57ipe/doWipe",
            "./Vendor/MSFT/Remote%2557ipe/x",
            "./Vendor/MSFT/RemoteWipe%2FdoWipe",
            "./Device/Vendor/MSFT/RemoteWipe/AutomaticRedeployment/doAutomaticRedeployment",
            "./Device/Vendor/MSFT/DMClient/Provider/Bellwether/Unenroll",
            "./Vendor/MSFT/DMClient/unenroll?list=x",
        ] {
            assert_eq!(raw_is_destructive(exec(uri).as_bytes()).ok(), Some(true), "{uri}");
            let inside = format!("<Sequence><Atomic>{}</Atomic></Sequence>", exec(uri));
            assert_eq!(raw_is_destructive(inside.as_bytes()).ok(), Some(true), "{uri} in groups");
        }
        let delete = "<Delete><Item><Target><LocURI>./Vendor/MSFT/DMClient/Provider/B</LocURI></Target></Item></Delete>";
        assert_eq!(raw_is_destructive(delete.as_bytes()).ok(), Some(true));
        for uri in ["./Device/Vendor/MSFT/Reboot/RebootNow", "./Device/Vendor/MSFT/Policy/Config/A/Wipe%"] {
            assert_eq!(raw_is_destructive(exec(uri).as_bytes()).ok(), Some(false), "{uri}");
        }
        assert!(raw_is_destructive(b"<plist/>").is_err());
    }
}
