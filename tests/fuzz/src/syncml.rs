//! SyncML: the two wire forms are one message.

use bellwether_windows::syncml::reader::{self, Limits};
use bellwether_windows::syncml::{Command, Data, Error, Message, wbxml, writer};

/// Limits for the targets: small enough to be met.
pub const TIGHT: Limits = Limits { max_bytes: 8192, max_depth: 12, max_nodes: 200, max_attributes: 4 };

/// Writes a message in both forms and reads it back.
pub fn comes_back(message: &Message) {
    match writer::write(message) {
        // In XML everything inside `Data` is its text, so that a command of that name has no `CmdID`.
        Ok(_) if message.commands.iter().any(is_called_data) => {}
        Ok(xml) => {
            let back = reader::read(&xml, &Limits::SESSION).expect("XML of ours");
            assert_eq!(&back, message, "from XML");
        }
        Err(error) => assert!(matches!(error, Error::NotWritable(_)), "{error}"),
    }
    match wbxml::write(message) {
        Ok(bytes) => {
            let back = wbxml::read(&bytes, &Limits::SESSION).expect("WBXML of ours");
            let mut sent = message.clone();
            sent.commands.iter_mut().for_each(as_wbxml);
            assert_eq!(back, sent, "from WBXML");
        }
        Err(error) => assert!(matches!(error, Error::NotWritable(_)), "{error}"),
    }
}

fn is_called_data(command: &Command) -> bool {
    match command {
        Command::Group(group) => group.commands.iter().any(is_called_data),
        command => command.name() == "Data",
    }
}

/// WBXML has no attributes, and `msft:originalerror` is one; and it does not tell markup from text.
fn as_wbxml(command: &mut Command) {
    let items = match command {
        Command::Status(status) => {
            status.original_error = None;
            &mut status.items
        }
        Command::Alert(alert) => &mut alert.items,
        Command::Results(results) => &mut results.items,
        Command::Request(request) => &mut request.items,
        Command::Group(group) => return group.commands.iter_mut().for_each(as_wbxml),
        Command::Unknown { .. } => return,
    };
    for data in items.iter_mut().filter_map(|item| item.data.as_mut()) {
        if let Data::Markup(text) = data {
            *data = Data::Text(std::mem::take(text));
        }
    }
}

/// An empty message to put commands into.
#[must_use]
pub fn host() -> Message {
    const FRAME: &[u8] =
        b"<SyncML><SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto><SessionID>1</SessionID>\
        <MsgID>1</MsgID><Target><LocURI>t</LocURI></Target><Source><LocURI>s</LocURI></Source></SyncHdr>\
        <SyncBody><Final/></SyncBody></SyncML>";
    reader::read(FRAME, &Limits::UNAUTHENTICATED).expect("a frame")
}
