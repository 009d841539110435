//! Typed messages from and to elements, in the order of the DTD (SyncML Representation Protocol 1.2, section 5).

use super::tree::Element;
use super::{
    Alert, Chal, Command, Cred, Data, Error, Format, Group, GroupKind, Header, Item, Location, Message, Meta,
    Request, Results, Status, Verb,
};

pub(crate) fn from_tree(root: &Element) -> Result<Message, Error> {
    if root.name != "SyncML" {
        return Err(Error::Missing { parent: "the document", element: "SyncML" });
    }
    let header = root.child("SyncHdr").ok_or(Error::Missing { parent: "SyncML", element: "SyncHdr" })?;
    let body = root.child("SyncBody").ok_or(Error::Missing { parent: "SyncML", element: "SyncBody" })?;
    let header = header_from(header)?;
    let commands = body.children.iter().filter(|child| child.name != "Final").map(command_from).collect();
    Ok(Message { header, commands, last: body.has("Final") })
}

/// The commands that an administrator wrote: a whole message, or what would stand in its body.
pub(crate) fn commands_from(mut body: Element) -> Result<Vec<Command>, Error> {
    if let [only] = body.children.as_slice()
        && matches!(&*only.name, "SyncML" | "SyncBody")
    {
        let inner = if only.name == "SyncML" { only.child("SyncBody").cloned() } else { Some(only.clone()) };
        body = inner.ok_or(Error::Missing { parent: "SyncML", element: "SyncBody" })?;
    }
    body.children.retain(|child| child.name != "Final");
    body.children.iter_mut().for_each(number);
    Ok(body.children.iter().map(command_from).collect())
}

/// A command without a number is no command; the session gives the real ones.
fn number(command: &mut Element) {
    if !matches!(&*command.name, "CmdID" | "NoResp" | "Meta" | "Item" | "Data" | "Correlator") {
        if command.text_of("CmdID").is_none_or(str::is_empty) {
            command.children.retain(|child| child.name != "CmdID");
            command.push_text("CmdID", "1");
        }
        if matches!(&*command.name, "Atomic" | "Sequence") {
            command.children.iter_mut().for_each(number);
        }
    }
}

fn header_from(element: &Element) -> Result<Header, Error> {
    let required = |name: &'static str| {
        element
            .text_of(name)
            .filter(|text| !text.is_empty())
            .ok_or(Error::Missing { parent: "SyncHdr", element: name })
    };
    let ver_dtd = required("VerDTD")?;
    let ver_proto = required("VerProto")?;
    if !matches!(ver_dtd, "1.1" | "1.2") || !matches!(ver_proto, "DM/1.1" | "DM/1.2") {
        return Err(Error::Version);
    }
    let session_id = required("SessionID")?;
    if session_id.len() > 64 {
        return Err(Error::Unusable { element: "SessionID" });
    }
    let msg_id =
        required("MsgID")?.parse().ok().filter(|id| *id > 0).ok_or(Error::Unusable { element: "MsgID" })?;
    let place = |name: &'static str| {
        location_from(element, name)
            .filter(|location| !location.uri.is_empty())
            .ok_or(Error::Missing { parent: "SyncHdr", element: name })
    };
    Ok(Header {
        ver_dtd: ver_dtd.to_owned(),
        ver_proto: ver_proto.to_owned(),
        session_id: session_id.to_owned(),
        msg_id,
        target: place("Target")?,
        source: place("Source")?,
        resp_uri: element.text_of("RespURI").map(str::to_owned),
        no_resp: element.has("NoResp"),
        cred: element.child("Cred").map(|cred| {
            let meta = meta_from(cred);
            Cred {
                kind: meta.kind,
                format: meta.format,
                data: cred.text_of("Data").unwrap_or_default().to_owned(),
            }
        }),
        meta: meta_from(element),
    })
}

fn location_from(parent: &Element, name: &str) -> Option<Location> {
    let element = parent.child(name)?;
    Some(Location {
        uri: element.text_of("LocURI").unwrap_or_default().to_owned(),
        name: element.text_of("LocName").map(str::to_owned),
    })
}

fn meta_from(parent: &Element) -> Meta {
    let Some(meta) = parent.child("Meta") else { return Meta::default() };
    // Some encoders wrap the elements in MetInf, as the representation protocol allows.
    let meta = meta.child("MetInf").unwrap_or(meta);
    let text = |name: &str| meta.text_of(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let number = |name: &str| meta.text_of(name).and_then(|text| text.parse().ok());
    Meta {
        format: meta.text_of("Format").filter(|text| !text.is_empty()).map(Format::parse),
        kind: text("Type"),
        mark: text("Mark"),
        size: number("Size"),
        next_nonce: text("NextNonce"),
        max_msg_size: number("MaxMsgSize"),
        max_obj_size: number("MaxObjSize"),
    }
}

fn item_from(element: &Element) -> Item {
    Item {
        target: location_from(element, "Target"),
        source: location_from(element, "Source"),
        meta: meta_from(element),
        data: element.child("Data").map(|data| data.content.clone().unwrap_or_else(|| Data::text(""))),
        more: element.has("MoreData"),
    }
}

fn items_from(element: &Element) -> Vec<Item> {
    element.children.iter().filter(|child| child.name == "Item").map(item_from).collect()
}

/// A command that cannot be understood becomes [`Command::Unknown`]: the others still count.
fn command_from(element: &Element) -> Command {
    let cmd_id = element.text_of("CmdID").unwrap_or_default().to_owned();
    let unknown = || Command::Unknown { name: element.name.to_string(), cmd_id: cmd_id.clone() };
    if cmd_id.is_empty() {
        return unknown();
    }
    understood(element, &cmd_id).unwrap_or_else(unknown)
}

fn understood(element: &Element, cmd_id: &str) -> Option<Command> {
    let cmd_id = cmd_id.to_owned();
    let code = || element.text_of("Data").and_then(|text| text.parse().ok());
    let texts = |name: &str| {
        element
            .children
            .iter()
            .filter(|child| child.name == name)
            .map(|child| child.text().to_owned())
            .collect()
    };
    let number = |name: &str| element.text_of(name).and_then(|text| text.parse().ok());
    Some(match &*element.name {
        "Alert" => Command::Alert(Alert {
            cmd_id,
            no_resp: element.has("NoResp"),
            code: code()?,
            correlator: element.text_of("Correlator").map(str::to_owned),
            items: items_from(element),
        }),
        "Status" => Command::Status(Status {
            cmd_id,
            msg_ref: number("MsgRef"),
            cmd_ref: element.text_of("CmdRef").unwrap_or_default().to_owned(),
            cmd: element.text_of("Cmd").unwrap_or_default().to_owned(),
            target_refs: texts("TargetRef"),
            source_refs: texts("SourceRef"),
            chal: element.child("Chal").map(|chal| Chal { meta: meta_from(chal) }),
            code: code()?,
            original_error: element.child("Data").and_then(|data| data.original_error.clone()),
            items: items_from(element),
        }),
        "Results" => Command::Results(Results {
            cmd_id,
            msg_ref: number("MsgRef"),
            cmd_ref: element.text_of("CmdRef").unwrap_or_default().to_owned(),
            cmd: element.text_of("Cmd").map(str::to_owned),
            meta: meta_from(element),
            items: items_from(element),
        }),
        "Atomic" | "Sequence" => Command::Group(Group {
            kind: if element.name == "Atomic" { GroupKind::Atomic } else { GroupKind::Sequence },
            cmd_id,
            no_resp: element.has("NoResp"),
            meta: meta_from(element),
            commands: element
                .children
                .iter()
                .filter(|child| !matches!(&*child.name, "CmdID" | "NoResp" | "Meta"))
                .map(command_from)
                .collect(),
        }),
        name => Command::Request(Request {
            verb: Verb::parse(name)?,
            cmd_id,
            no_resp: element.has("NoResp"),
            meta: meta_from(element),
            items: items_from(element),
        }),
    })
}

pub(crate) fn to_tree(message: &Message) -> Element {
    let mut root = Element::new("SyncML");
    root.push(header_to(&message.header));
    let mut body = Element::new("SyncBody");
    body.children.extend(message.commands.iter().map(command_to));
    body.flag("Final", message.last);
    root.push(body);
    root
}

fn header_to(header: &Header) -> Element {
    let mut element = Element::new("SyncHdr");
    element.push_text("VerDTD", &*header.ver_dtd);
    element.push_text("VerProto", &*header.ver_proto);
    element.push_text("SessionID", &*header.session_id);
    element.push_text("MsgID", header.msg_id.to_string());
    location_to(&mut element, "Target", Some(&header.target));
    location_to(&mut element, "Source", Some(&header.source));
    element.maybe("RespURI", header.resp_uri.as_deref());
    element.flag("NoResp", header.no_resp);
    if let Some(cred) = &header.cred {
        let mut child = Element::new("Cred");
        meta_to(
            &mut child,
            &Meta { format: cred.format.clone(), kind: cred.kind.clone(), ..Meta::default() },
        );
        child.push_text("Data", &*cred.data);
        element.push(child);
    }
    meta_to(&mut element, &header.meta);
    element
}

fn location_to(parent: &mut Element, name: &'static str, location: Option<&Location>) {
    if let Some(location) = location {
        let mut element = Element::new(name);
        element.push_text("LocURI", &*location.uri);
        element.maybe("LocName", location.name.as_deref());
        parent.push(element);
    }
}

fn meta_to(parent: &mut Element, meta: &Meta) {
    if meta.is_empty() {
        return;
    }
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let mut element = Element::new("Meta");
    element.maybe("Format", meta.format.as_ref().map(Format::as_str));
    element.maybe("Type", meta.kind.as_deref());
    element.maybe("Mark", meta.mark.as_deref());
    element.maybe("Size", number(meta.size).as_deref());
    element.maybe("NextNonce", meta.next_nonce.as_deref());
    element.maybe("MaxMsgSize", number(meta.max_msg_size).as_deref());
    element.maybe("MaxObjSize", number(meta.max_obj_size).as_deref());
    parent.push(element);
}

fn items_to(parent: &mut Element, items: &[Item]) {
    for item in items {
        let mut element = Element::new("Item");
        location_to(&mut element, "Target", item.target.as_ref());
        location_to(&mut element, "Source", item.source.as_ref());
        meta_to(&mut element, &item.meta);
        if let Some(data) = &item.data {
            element.push(Element { content: Some(data.clone()), ..Element::new("Data") });
        }
        element.flag("MoreData", item.more);
        parent.push(element);
    }
}

pub(crate) fn command_to(command: &Command) -> Element {
    match command {
        Command::Alert(alert) => {
            let mut element = Element::new("Alert");
            element.push_text("CmdID", &*alert.cmd_id);
            element.flag("NoResp", alert.no_resp);
            element.push_text("Data", alert.code.to_string());
            element.maybe("Correlator", alert.correlator.as_deref());
            items_to(&mut element, &alert.items);
            element
        }
        Command::Status(status) => status_to(status),
        Command::Results(results) => {
            let mut element = Element::new("Results");
            element.push_text("CmdID", &*results.cmd_id);
            element.maybe("MsgRef", results.msg_ref.map(|id| id.to_string()).as_deref());
            element.push_text("CmdRef", &*results.cmd_ref);
            element.maybe("Cmd", results.cmd.as_deref());
            meta_to(&mut element, &results.meta);
            items_to(&mut element, &results.items);
            element
        }
        Command::Request(request) => {
            let mut element = Element::new(request.verb.as_str());
            element.push_text("CmdID", &*request.cmd_id);
            element.flag("NoResp", request.no_resp);
            meta_to(&mut element, &request.meta);
            items_to(&mut element, &request.items);
            element
        }
        Command::Group(group) => {
            let mut element = Element::new(group.kind.as_str());
            element.push_text("CmdID", &*group.cmd_id);
            element.flag("NoResp", group.no_resp);
            meta_to(&mut element, &group.meta);
            element.children.extend(group.commands.iter().map(command_to));
            element
        }
        Command::Unknown { name, cmd_id } => {
            let mut element = Element { name: name.clone().into(), ..Element::default() };
            element.push_text("CmdID", &**cmd_id);
            element
        }
    }
}

fn status_to(status: &Status) -> Element {
    let mut element = Element::new("Status");
    element.push_text("CmdID", &*status.cmd_id);
    element.maybe("MsgRef", status.msg_ref.map(|id| id.to_string()).as_deref());
    element.push_text("CmdRef", &*status.cmd_ref);
    element.push_text("Cmd", &*status.cmd);
    for target in &status.target_refs {
        element.push_text("TargetRef", &**target);
    }
    for source in &status.source_refs {
        element.push_text("SourceRef", &**source);
    }
    if let Some(chal) = &status.chal {
        let mut child = Element::new("Chal");
        meta_to(&mut child, &chal.meta);
        element.push(child);
    }
    let mut data = Element::with_text("Data", status.code.to_string());
    data.original_error.clone_from(&status.original_error);
    element.push(data);
    items_to(&mut element, &status.items);
    element
}
