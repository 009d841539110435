//! The elements of SyncML 1.2 with their WBXML tokens (SyncML Representation Protocol 1.2, section 9; Meta
//! Information 1.2, section 7).

/// Code page 0, from token 0x05 on. 0x30 is reserved.
const SYNCML: &[&str] = &[
    "Add",
    "Alert",
    "Archive",
    "Atomic",
    "Chal",
    "Cmd",
    "CmdID",
    "CmdRef",
    "Copy",
    "Cred",
    "Data",
    "Delete",
    "Exec",
    "Final",
    "Get",
    "Item",
    "Lang",
    "LocName",
    "LocURI",
    "Map",
    "MapItem",
    "Meta",
    "MsgID",
    "MsgRef",
    "NoResp",
    "NoResults",
    "Put",
    "Replace",
    "RespURI",
    "Results",
    "Search",
    "Sequence",
    "SessionID",
    "SftDel",
    "Source",
    "SourceRef",
    "Status",
    "Sync",
    "SyncBody",
    "SyncHdr",
    "SyncML",
    "Target",
    "TargetRef",
    "",
    "VerDTD",
    "VerProto",
    "NumberOfChanges",
    "MoreData",
    "Field",
    "Filter",
    "Record",
    "FilterType",
    "SourceParent",
    "TargetParent",
    "Move",
    "Correlator",
];

/// Code page 1, from token 0x05 on.
const METINF: &[&str] = &[
    "Anchor",
    "EMI",
    "Format",
    "FreeID",
    "FreeMem",
    "Last",
    "Mark",
    "MaxMsgSize",
    "Mem",
    "MetInf",
    "Next",
    "NextNonce",
    "SharedMem",
    "Size",
    "Type",
    "Version",
    "MaxObjSize",
    "FieldLevel",
];

/// The first token of a page that names an element (WBXML 1.3, 7.1: 0 to 4 are global).
const FIRST: u8 = 5;

/// The page of the elements of `syncml:metinf`.
pub(crate) const PAGE_METINF: u8 = 1;

/// The element's own spelling with static lifetime, when SyncML knows it.
pub(crate) fn known(name: &str) -> Option<&'static str> {
    SYNCML.iter().chain(METINF).copied().find(|known| !known.is_empty() && *known == name)
}

/// The element behind a token, without its content and attribute bits.
pub(crate) fn name(page: u8, token: u8) -> Option<&'static str> {
    let names = match page {
        0 => SYNCML,
        PAGE_METINF => METINF,
        _ => return None,
    };
    names.get(usize::from(token.checked_sub(FIRST)?)).copied().filter(|name| !name.is_empty())
}

/// The page and token of an element.
pub(crate) fn token(name: &str) -> Option<(u8, u8)> {
    [(0, SYNCML), (PAGE_METINF, METINF)].into_iter().find_map(|(page, names)| {
        let index = names.iter().position(|known| !known.is_empty() && *known == name)?;
        Some((page, u8::try_from(index).ok()?.checked_add(FIRST)?))
    })
}
