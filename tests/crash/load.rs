//! Everything that goes on in a house at once: wishes, calls, answers, enrollments, edits.

use crate::harness::{PATIENCE, Site, keys};
use crate::ledger::{Ledger, Paper, Wish};
use bellwether_sim::{AppleDevice, Family, WindowsPc};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex as Turn;

/// How long to wait before something that failed is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// How the words of a connection that did not come about begin.
pub const CLOSED: &str = "no connection";

pub enum Device {
    Mac(Box<AppleDevice>),
    Pc(Box<WindowsPc>),
}

/// A device, and where it enrolls.
pub struct Member {
    pub number: usize,
    pub device: Device,
    link: Option<String>,
    /// Its enrollment was answered to the end.
    pub settled: bool,
    /// Why the last call broke off.
    pub why: Why,
}

/// Why a call broke off.
#[derive(Debug, Default)]
pub struct Why {
    pub text: String,
    /// The HTTP status, when there was an answer.
    pub status: Option<u16>,
}

impl Member {
    pub async fn new(number: usize, site: &Site) -> Self {
        let http = site.http.clone();
        let device = if number.is_multiple_of(2) {
            let mac = AppleDevice::builder(Family::Mac, http).keys(keys().await).build().unwrap();
            Device::Mac(Box::new(mac))
        } else {
            Device::Pc(Box::new(WindowsPc::builder(http).keys(keys().await).build().unwrap()))
        };
        Self { number, device, link: None, settled: false, why: Why::default() }
    }

    pub fn serial(&self) -> String {
        match &self.device {
            Device::Mac(mac) => mac.serial().to_owned(),
            Device::Pc(pc) => pc.serial(),
        }
    }

    pub async fn enroll(&mut self, link: &str) -> bellwether_sim::Result<()> {
        match &mut self.device {
            Device::Mac(mac) if mac.is_enrolled() => {
                // It has its profile and its identity; the answer to what it said last got lost.
                if !mac.token_update().await.is_ok_and(|reply| reply.status == 200) {
                    mac.authenticate().await?.ok("Authenticate")?;
                    mac.token_update().await?.ok("TokenUpdate")?;
                }
            }
            Device::Mac(mac) => mac.enroll(link).await?,
            Device::Pc(pc) => pc.enroll_by_link(link).await?,
        }
        self.settled = true;
        Ok(())
    }

    /// One call home: the names that it was told, how many of them were confirmed for sure, and whether the call was
    /// answered to its end.
    pub async fn call(&mut self) -> (Vec<String>, usize, bool) {
        match &mut self.device {
            Device::Mac(mac) => {
                let before = mac.told().len();
                let whole = self.why.noted(mac.poll().await);
                let told = mac.told()[before..].iter();
                let names: Vec<String> =
                    told.filter_map(|told| name_in(&format!("{:?}", told.command))).collect();
                // The answer to the last one may have been anything.
                let certain = if whole { names.len() } else { names.len().saturating_sub(1) };
                (names, certain, whole)
            }
            Device::Pc(pc) => {
                let before = pc.told().len();
                let whole = self.why.noted(pc.session().await);
                let told = pc.told();
                let names: Vec<String> =
                    told[before..].iter().filter_map(|told| name_in(told.data.as_deref()?)).collect();
                let certain = if whole { names.len() } else { 0 };
                (names, certain, whole)
            }
        }
    }
}

impl Why {
    /// Keeps the words of an error; whether there is none.
    fn noted<T>(&mut self, outcome: bellwether_sim::Result<T>) -> bool {
        let error = outcome.err();
        self.text = error.as_ref().map(words).unwrap_or_default();
        self.status = error.as_ref().and_then(bellwether_sim::Error::status);
        error.is_none()
    }
}

/// An error with its causes. What met a closed door begins with it: nobody was there, and nothing was lost.
fn words(error: &bellwether_sim::Error) -> String {
    let mut text = match error {
        bellwether_sim::Error::Http { source, .. } if source.is_connect() => format!("{CLOSED}: "),
        _ => String::new(),
    };
    text.push_str(&error.to_string());
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// `p03n000017`: the name that a device is to have.
fn name_in(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .find(|word| word.len() == 10 && word.starts_with('p') && word.as_bytes()[3] == b'n')
        .map(str::to_owned)
}

/// The house under load.
#[derive(Clone)]
pub struct Scene {
    pub site: Site,
    ledger: Arc<Mutex<Ledger>>,
    serials: Vec<String>,
    members: Vec<Arc<Turn<Member>>>,
    under_way: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    counter: Arc<AtomicU32>,
    /// Why calls were not served, in the words of who called.
    troubles: Arc<Mutex<Vec<String>>>,
}

/// A request that changes something and is not answered yet.
struct UnderWay<'a>(&'a AtomicU32);

impl<'a> UnderWay<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a crash did to what was under way.
#[derive(Default, Debug, Clone, Copy)]
pub struct Found {
    /// Wishes and papers that were not answered and are there.
    pub committed: u32,
    /// Those that are not.
    pub lost: u32,
}

impl Scene {
    pub async fn new(site: Site, size: usize) -> Self {
        let mut members = Vec::new();
        for number in 0..size {
            members.push(Member::new(number, &site).await);
        }
        Self {
            site,
            ledger: Arc::default(),
            serials: members.iter().map(Member::serial).collect(),
            members: members.into_iter().map(|member| Arc::new(Turn::new(member))).collect(),
            under_way: Arc::default(),
            stop: Arc::default(),
            counter: Arc::default(),
            troubles: Arc::default(),
        }
    }

    /// Why calls were not served since the last time.
    pub fn troubles(&self) -> Vec<String> {
        std::mem::take(&mut *self.troubles.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn trouble(&self, why: String) {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).push(why);
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that change something and are not answered at this moment.
    pub fn under_way(&self) -> u32 {
        self.under_way.load(Ordering::SeqCst)
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// A call of the API; none when there was no answer, or one that promises nothing.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        key: Option<&str>,
    ) -> Option<(u16, Value)> {
        let under_way = (method != Method::GET).then(|| UnderWay::new(&self.under_way));
        let mut request = self.site.http.request(method, &format!("{}/api/v1{path}", self.site.url));
        request = request.header("authorization", format!("Bearer {}", self.site.key.expose_secret()));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let reply = match self.site.http.send("API", request).await {
            Ok(reply) => reply,
            Err(error) => {
                self.trouble(words(&error));
                return None;
            }
        };
        drop(under_way);
        if reply.status >= 500 {
            self.trouble(format!("API: {} {path}", reply.status));
        }
        (reply.status < 500)
            .then(|| (reply.status, serde_json::from_slice(&reply.body).unwrap_or(Value::Null)))
    }

    /// The same, until it is answered.
    async fn insist(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        key: Option<&str>,
    ) -> (u16, Value) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = self.call(method.clone(), path, body.clone(), key).await {
                return answer;
            }
            assert!(Instant::now() < until, "{method} {path} is not answered");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn get(&self, path: &str) -> Value {
        let (status, json) = self.insist(Method::GET, path, None, None).await;
        assert_eq!(status, 200, "{path}: {json}");
        json
    }

    /// Everything at once until somebody says stop.
    pub async fn run(&self) {
        self.stop.store(false, Ordering::SeqCst);
        let mut tasks = Vec::new();
        for number in 0..self.members.len() {
            let scene = self.clone();
            tasks.push(tokio::spawn(async move { scene.lives(number).await }));
            let scene = self.clone();
            tasks.push(tokio::spawn(async move { scene.wishes(number).await }));
        }
        let scene = self.clone();
        tasks.push(tokio::spawn(async move { scene.edits().await }));
        for task in tasks {
            task.await.unwrap();
        }
    }

    /// A device enrolls, then calls again and again.
    async fn lives(&self, number: usize) {
        let mut member = self.members[number].lock().await;
        while !self.stopped() {
            if !self.live(&mut member).await {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// One enrollment or one call; whether it was answered to its end.
    async fn live(&self, member: &mut Member) -> bool {
        if !member.settled {
            let link = match &member.link {
                Some(link) => link.clone(),
                None => match self.invite(member).await {
                    Some(link) => member.link.insert(link).clone(),
                    None => return false,
                },
            };
            let _under_way = UnderWay::new(&self.under_way);
            let enrolled = member.enroll(&link).await;
            if let Err(error) = &enrolled {
                self.trouble(words(error));
            }
            return enrolled.is_ok();
        }
        let under_way = UnderWay::new(&self.under_way);
        let (names, certain, whole) = member.call().await;
        drop(under_way);
        if !whole {
            self.trouble(member.why.text.clone());
        }
        let mut ledger = self.ledger();
        ledger.heard(member.number, &names, &names[..certain]);
        if !whole && matches!(member.device, Device::Mac(_)) {
            *ledger.broken.entry(member.number).or_default() += 1;
        }
        whole
    }

    async fn invite(&self, member: &Member) -> Option<String> {
        let platform = match member.device {
            Device::Mac(_) => "apple",
            Device::Pc(_) => "windows",
        };
        let account = format!("person-{}@example.org", member.number);
        let wish =
            json!({ "platform": platform, "account": account, "test_only": true, "ownership": "company" });
        let (status, made) = self.call(Method::POST, "/invitations", Some(wish), None).await?;
        assert_eq!(status, 201, "{made}");
        Some(made["link"].as_str().unwrap().to_owned())
    }

    /// New names for a device, one after another.
    async fn wishes(&self, number: usize) {
        while !self.stopped() {
            let name = format!("p{number:02}n{:06}", self.counter.fetch_add(1, Ordering::SeqCst));
            self.ledger().wishes.insert(name.clone(), Wish { device: number, ..Wish::default() });
            loop {
                match self.wish(number, &name).await {
                    Some(true) => break,
                    // The device is not enrolled yet.
                    Some(false) => {
                        self.ledger().wishes.remove(&name);
                        tokio::time::sleep(PAUSE).await;
                        break;
                    }
                    None if self.stopped() => return,
                    None => tokio::time::sleep(PAUSE).await,
                }
            }
        }
    }

    /// Whether the command was accepted; none when nobody said.
    async fn wish(&self, number: usize, name: &str) -> Option<bool> {
        let path = format!("/devices/{}/commands", self.serials[number]);
        let intent = json!({ "intent": { "type": "rename", "name": name } });
        let (status, made) = self.call(Method::POST, &path, Some(intent), Some(name)).await?;
        match status {
            201 => {
                let id = made["id"].as_str().unwrap().to_owned();
                let mut ledger = self.ledger();
                let wish = ledger.wishes.get_mut(name).unwrap();
                assert!(wish.id.as_ref().is_none_or(|known| *known == id), "{name} became two commands (Q2)");
                wish.id = Some(id);
                Some(true)
            }
            404 | 409 => Some(false),
            _ => panic!("{path}: {status} {made}"),
        }
    }

    /// Invitations are made, and some of them taken back.
    async fn edits(&self) {
        while !self.stopped() {
            let key = format!("paper-{:06}", self.counter.fetch_add(1, Ordering::SeqCst));
            self.ledger().papers.insert(key.clone(), Paper::default());
            while self.paper(&key).await.is_none() {
                if self.stopped() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// An invitation is made and, when its number is even, taken back.
    async fn paper(&self, key: &str) -> Option<()> {
        let body = json!({ "platform": "apple", "test_only": true, "ownership": "company" });
        let (status, made) = self.call(Method::POST, "/invitations", Some(body), Some(key)).await?;
        assert_eq!(status, 201, "{made}");
        let id = made["id"].as_str().or_else(|| made["invitation"]["id"].as_str()).unwrap().to_owned();
        self.ledger().papers.insert(key.to_owned(), Paper { id: Some(id.clone()), revoked: false });
        if key.ends_with(['0', '2', '4', '6', '8']) {
            let (status, gone) = self.call(Method::DELETE, &format!("/invitations/{id}"), None, None).await?;
            assert!((200..300).contains(&status) || status == 409, "{status} {gone}");
            self.ledger().papers.insert(key.to_owned(), Paper { id: Some(id), revoked: true });
        }
        Some(())
    }

    /// After a crash: every promise is collected, and what was under way is taken up again.
    pub async fn collect(&self) -> Found {
        let mut found = Found::default();
        let commands = self.commands().await;
        let (known, open): (Vec<Wish>, Vec<String>) = {
            let ledger = self.ledger();
            let known = ledger.wishes.values().filter(|wish| wish.id.is_some()).cloned().collect();
            let open = ledger.wishes.iter().filter(|(_, wish)| wish.id.is_none());
            (known, open.map(|(name, _)| name.clone()).collect())
        };
        for wish in &known {
            let id = wish.id.as_ref().unwrap();
            let state = commands.get(id).unwrap_or_else(|| panic!("Q1: the accepted command {id} is gone"));
            if wish.confirmed {
                assert_eq!(state, "acknowledged", "Q4: a confirmed answer is gone ({id})");
            }
        }
        let unanswered = u32::try_from(commands.len().checked_sub(known.len()).unwrap()).unwrap();
        assert!(unanswered as usize <= open.len(), "commands that nobody wants");
        found.committed += unanswered;
        found.lost += u32::try_from(open.len()).unwrap() - unanswered;
        for name in open {
            let number = name[1..3].parse().unwrap();
            let until = Instant::now() + PATIENCE;
            loop {
                match self.wish(number, &name).await {
                    Some(true) => break,
                    Some(false) => {
                        self.ledger().wishes.remove(&name);
                        break;
                    }
                    None => assert!(Instant::now() < until, "{name} is not answered"),
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        let papers = self.ledger().papers.clone();
        for (key, paper) in papers {
            match &paper.id {
                Some(id) if paper.revoked => {
                    let shown = self.get(&format!("/invitations/{id}")).await;
                    let state = shown["state"].as_str().or_else(|| shown["invitation"]["state"].as_str());
                    assert_eq!(state, Some("revoked"), "a revoked invitation is open again: {shown}");
                    // Looked at once is enough: nothing changes it any more.
                    self.ledger().papers.remove(&key);
                }
                _ => {
                    let until = Instant::now() + PATIENCE;
                    while self.paper(&key).await.is_none() {
                        assert!(Instant::now() < until, "{key} is not answered");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
        self.audit().await;
        for member in &self.members {
            let mut member = member.lock().await;
            self.comes_back(&mut member).await;
        }
        self.untold(&self.commands().await);
        self.ledger().in_order();
        found
    }

    /// A device that was enrolled is served, and one that was about to be can go on.
    async fn comes_back(&self, member: &mut Member) {
        if member.settled {
            let until = Instant::now() + PATIENCE;
            while !self.live(member).await {
                assert!(
                    Instant::now() < until,
                    "device {} is not served any more: {}",
                    member.number,
                    member.why.text
                );
                tokio::time::sleep(PAUSE).await;
            }
            return;
        }
        let Some(link) = member.link.clone() else { return };
        if member.enroll(&link).await.is_err() {
            // It was used up by an enrollment whose last answer got lost: a person gets another one.
            member.link = self.invite(member).await;
            let link = member.link.clone().expect("an invitation");
            member.enroll(&link).await.expect("a device enrolls after a crash");
        }
    }

    /// Nothing counts as done that no device was told.
    fn untold(&self, commands: &BTreeMap<String, String>) {
        let ledger = self.ledger();
        let mut untold = BTreeMap::<usize, Vec<&str>>::new();
        for (name, wish) in &ledger.wishes {
            let state = wish.id.as_ref().and_then(|id| commands.get(id));
            let told = ledger.told.get(&wish.device).is_some_and(|told| told.contains(name));
            if state.is_some_and(|state| state == "acknowledged") && !told {
                untold.entry(wish.device).or_default().push(name);
            }
        }
        for (device, names) in untold {
            let broken = ledger.broken.get(&device).copied().unwrap_or_default();
            assert!(names.len() <= broken, "device {device} was never told what counts as done: {names:?}");
        }
    }

    /// All renames: id and state.
    async fn commands(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut cursor = None::<String>;
        loop {
            let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = self.get(&format!("/commands?limit=500{after}")).await;
            for command in page["items"].as_array().unwrap().iter().filter(|c| c["kind"] == "rename") {
                let text = |key: &str| command[key].as_str().unwrap().to_owned();
                found.insert(text("id"), text("state"));
            }
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return found;
            }
        }
    }

    async fn audit(&self) {
        let verified = self.get("/audit/verify").await;
        assert_eq!(verified["intact"], true, "{verified}");
        let entries = verified["entries"].as_u64().unwrap_or_default() as usize;
        let mut ledger = self.ledger();
        assert!(entries >= ledger.audited, "the audit lost entries: {entries} of {}", ledger.audited);
        ledger.audited = entries;
    }

    /// In the end everything is done: all devices call until nothing is left.
    pub async fn drain(&self) {
        for member in &self.members {
            let mut member = member.lock().await;
            if member.settled {
                self.comes_back(&mut member).await;
                self.comes_back(&mut member).await;
            }
        }
        let commands = self.commands().await;
        let open: Vec<_> = commands.iter().filter(|(_, state)| *state != "acknowledged").collect();
        assert!(open.is_empty(), "not done in the end: {open:?}");
        assert_eq!(commands.len(), self.ledger().wishes.len(), "one command for each wish");
        self.audit().await;
    }
}
