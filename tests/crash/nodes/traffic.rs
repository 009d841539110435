//! Administrators and devices, who ask whichever node takes them. Whatever they ask and hear is written down.

use crate::chance::Chance;
use crate::harness::{PATIENCE, Site, keys};
use crate::load::{Device, Member};
use crate::nodes::history::{Exchange, History, Job, REVOKED_WITHIN, Trial, Wish};
use bellwether_sim::{AppleDevice, Family};
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex as Turn;

/// How long to wait before something that failed is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// An answer that takes longer is none.
const PATIENT: Duration = Duration::from_secs(25);

#[derive(Clone)]
pub struct Traffic {
    site: Site,
    /// The nodes themselves, past the splitter.
    nodes: Vec<Site>,
    history: Arc<Mutex<History>>,
    serials: Arc<Vec<String>>,
    members: Arc<Vec<Arc<Turn<Member>>>>,
    stop: Arc<AtomicBool>,
    counter: Arc<AtomicU32>,
}

/// What came of a call.
enum Heard {
    /// A status below 500 and what was said.
    Answer(u16, Value),
    /// Come back later, or nothing at all: it may have happened.
    Unknown,
}

impl Traffic {
    /// So many devices, half Macs and half PCs, all enrolled.
    pub async fn new(site: Site, nodes: Vec<Site>, devices: usize) -> Self {
        let mut members = Vec::new();
        for number in 0..devices {
            members.push(Member::new(number, &site).await);
        }
        let traffic = Self {
            site,
            nodes,
            history: Arc::default(),
            serials: Arc::new(members.iter().map(Member::serial).collect()),
            members: Arc::new(members.into_iter().map(|member| Arc::new(Turn::new(member))).collect()),
            stop: Arc::default(),
            counter: Arc::default(),
        };
        for member in traffic.members.iter() {
            let mut member = member.lock().await;
            let platform = if matches!(member.device, Device::Mac(_)) { "apple" } else { "windows" };
            let link = traffic.invite(platform, member.number).await.expect("an invitation");
            member.enroll(&link).await.expect("a device enrolls");
            assert!(member.call().await.2, "the first call: {:?}", member.why);
        }
        traffic
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// So many administrators and all devices at once, until somebody says stop.
    pub async fn run(&self, clients: usize, seed: u64) {
        self.stop.store(false, Ordering::SeqCst);
        let mut tasks = Vec::new();
        for number in 0..self.members.len() {
            let traffic = self.clone();
            tasks.push(tokio::spawn(async move { traffic.lives(number).await }));
        }
        for client in 0..clients as u64 {
            let traffic = self.clone();
            let chance = Chance::new(seed.wrapping_add(client));
            tasks.push(tokio::spawn(async move { traffic.administers(chance).await }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    }

    async fn lives(&self, number: usize) {
        while !self.stopped() {
            if !self.call(number).await {
                tokio::time::sleep(PAUSE).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One call of a device; whether it was answered to its end.
    pub async fn call(&self, number: usize) -> bool {
        let mut member = self.members[number].lock().await;
        let (names, confirmed, whole) = member.call().await;
        let why = &member.why;
        let mut history = self.history();
        history.note(if whole { "calls served" } else { "calls broken off" });
        if let Some(status) = why.status
            && status != 503
        {
            history.wrong.push(format!("device {number} was answered {status}: {}", why.text));
        }
        if why.text.contains("refused the session with 4") || why.text.contains("answer:") {
            history.wrong.push(format!("device {number}: {}", why.text));
        }
        history.exchanges.push(Exchange { device: number, names, confirmed });
        whole
    }

    async fn administers(&self, mut chance: Chance) {
        while !self.stopped() {
            match chance.between(0, 40) {
                0 => self.job().await,
                1 => self.redeems().await,
                2 | 3 => self.takes_back(chance.between(0, 2) as usize).await,
                _ => self.wishes(&mut chance).await,
            }
            tokio::time::sleep(Duration::from_millis(chance.between(50, 250))).await;
        }
    }

    /// A call of the API, to one site or another.
    async fn ask(&self, site: &Site, method: Method, path: &str, body: Option<&Value>, key: &str) -> Heard {
        let mut request = site.http.request(method.clone(), &format!("{}/api/v1{path}", site.url));
        request = request.header("authorization", format!("Bearer {}", site.key.expose_secret()));
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let reply = tokio::time::timeout(PATIENT, site.http.send("API", request)).await;
        let mut history = self.history();
        let Ok(Ok(reply)) = reply else {
            history.note("no answer");
            return Heard::Unknown;
        };
        if reply.status == 503 {
            history.note("503");
            if reply.header("retry-after").is_none() {
                history.wrong.push(format!("503 without Retry-After: {method} {path}"));
            }
            return Heard::Unknown;
        }
        if reply.status >= 500 {
            history.wrong.push(format!("{method} {path}: {} {}", reply.status, reply.text()));
            return Heard::Unknown;
        }
        history.note("answers");
        Heard::Answer(reply.status, serde_json::from_slice(&reply.body).unwrap_or(Value::Null))
    }

    /// Asks until there is an answer; none when everything stops before.
    async fn insist(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: &str,
    ) -> Option<(u16, Value)> {
        loop {
            match self.ask(&self.site, method.clone(), path, body, key).await {
                Heard::Answer(status, said) => return Some((status, said)),
                Heard::Unknown if self.stopped() => return None,
                Heard::Unknown => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn next(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::SeqCst)
    }

    /// A new name for a device; sometimes asked for twice in one moment.
    async fn wishes(&self, chance: &mut Chance) {
        let device = chance.between(0, self.serials.len() as u64) as usize;
        let name = format!("p{device:02}n{:06}", self.next());
        let wish =
            Wish { device, invoked: Instant::now(), accepted: None, ids: Default::default(), refused: false };
        self.history().wishes.insert(name.clone(), wish);
        if chance.between(0, 8) == 0 {
            tokio::join!(self.wish(device, &name), self.wish(device, &name));
        } else {
            self.wish(device, &name).await;
        }
    }

    /// Asks for a name until it is answered.
    async fn wish(&self, device: usize, name: &str) {
        let path = format!("/devices/{}/commands", self.serials[device]);
        let body = json!({ "intent": { "type": "rename", "name": name } });
        let Some((status, said)) = self.insist(Method::POST, &path, Some(&body), name).await else { return };
        let now = Instant::now();
        let mut history = self.history();
        let wish = history.wishes.get_mut(name).unwrap();
        match status {
            201 => {
                wish.ids.insert(said["id"].as_str().unwrap().to_owned());
                wish.accepted.get_or_insert(now);
            }
            _ => {
                wish.refused = true;
                history.wrong.push(format!("{name}: {status} {said}"));
            }
        }
    }

    /// One name for every device.
    async fn job(&self) {
        let name = format!("pzzn{:06}", self.next());
        let devices = (0..self.serials.len()).collect();
        self.history().jobs.insert(name.clone(), Job { devices, ids: Default::default() });
        self.job_named(&name).await;
    }

    async fn job_named(&self, name: &str) {
        let body = json!({ "devices": *self.serials, "intent": { "type": "rename", "name": name } });
        let Some((status, said)) = self.insist(Method::POST, "/commands", Some(&body), name).await else {
            return;
        };
        let mut history = self.history();
        history.note("jobs");
        match said["id"].as_str() {
            Some(id) if status == 202 => {
                history.jobs.get_mut(name).unwrap().ids.insert(id.to_owned());
            }
            _ => history.wrong.push(format!("job {name}: {status} {said}")),
        }
    }

    async fn invite(&self, platform: &str, number: usize) -> Option<String> {
        let account = format!("person-{number}@example.org");
        let wish =
            json!({ "platform": platform, "account": account, "test_only": true, "ownership": "company" });
        let (status, made) = self.insist(Method::POST, "/invitations", Some(&wish), "").await?;
        assert_eq!(status, 201, "{made}");
        Some(made["link"].as_str().unwrap().to_owned())
    }

    /// Two new devices with one invitation, in one moment.
    async fn redeems(&self) {
        let Some(link) = self.invite("apple", 10_000 + self.next() as usize).await else { return };
        let device = async || {
            let mac = AppleDevice::builder(Family::Mac, self.site.http.clone()).keys(keys().await).build();
            let mut mac = mac.unwrap();
            let enrolled = tokio::time::timeout(PATIENT, mac.enroll(&link)).await;
            // Whoever thinks that it is in asks for commands, too.
            matches!(enrolled, Ok(Ok(()))) && mac.idle().await.is_ok_and(|reply| reply.status == 200)
        };
        let (one, two) = tokio::join!(device(), device());
        let mut history = self.history();
        history.note("invitations raced for");
        history.redeemed.push(usize::from(one) + usize::from(two));
    }

    /// A key is made, used at both nodes, taken back through one, and tried at both.
    async fn takes_back(&self, through: usize) {
        let wish = json!({ "name": "short", "grants": ["device:read@server"], "expires_in_days": 1 });
        let Heard::Answer(201, made) = self.ask(&self.site, Method::POST, "/keys", Some(&wish), "").await
        else {
            return;
        };
        let id = made["id"].as_str().or_else(|| made["key"]["id"].as_str()).unwrap();
        let secret = SecretString::from(made["secret"].as_str().unwrap().to_owned());
        let path = format!("/keys/{id}");
        loop {
            let site = if self.stopped() { return } else { &self.nodes[through] };
            match self.ask(site, Method::DELETE, &path, None, "").await {
                // After an unknown answer it may be gone already.
                Heard::Answer(200..300 | 404, _) => break,
                Heard::Answer(status, said) => {
                    self.history().wrong.push(format!("revoking: {status} {said}"));
                    return;
                }
                Heard::Unknown => tokio::time::sleep(PAUSE).await,
            }
        }
        let revoked = Instant::now();
        while revoked.elapsed() < REVOKED_WITHIN * 2 {
            for (node, site) in self.nodes.iter().enumerate() {
                let thief = Site { key: secret.clone(), ..site.clone() };
                let tried = Instant::now();
                let heard = self.ask(&thief, Method::GET, "/devices?limit=1", None, "").await;
                let worked = matches!(heard, Heard::Answer(200, _));
                let mut history = self.history();
                history.note(match &heard {
                    Heard::Answer(200 | 401, _) => "keys tried after they were taken back",
                    _ => "keys tried without an answer",
                });
                history.trials.push(Trial { node, revoked, tried, worked });
            }
            tokio::time::sleep(REVOKED_WITHIN / 4).await;
        }
    }

    /// When all roads are whole: what nobody knows is asked for again under its key.
    pub async fn resolve(&self) -> usize {
        self.stop.store(false, Ordering::SeqCst);
        let (wishes, jobs): (Vec<(usize, String)>, Vec<String>) = {
            let history = self.history();
            let open = history.wishes.iter().filter(|(_, wish)| wish.ids.is_empty() && !wish.refused);
            let jobs = history.jobs.iter().filter(|(_, job)| job.ids.is_empty());
            (
                open.map(|(name, wish)| (wish.device, name.clone())).collect(),
                jobs.map(|(name, _)| name.clone()).collect(),
            )
        };
        for (device, name) in &wishes {
            self.wish(*device, name).await;
        }
        for name in &jobs {
            self.job_named(name).await;
        }
        wishes.len() + jobs.len()
    }

    /// Every device is served again, at once or soon.
    pub async fn all_served(&self, within: Duration) {
        let until = Instant::now() + within;
        for number in 0..self.members.len() {
            while !self.call(number).await {
                let why = self.members[number].lock().await;
                assert!(Instant::now() < until, "device {number} is not served again: {:?}", why.why);
                drop(why);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// A page of the API that must be there.
    pub async fn get(&self, path: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.ask(&self.site, Method::GET, path, None, "").await {
                Heard::Answer(200, said) => return said,
                Heard::Answer(status, said) => panic!("{path}: {status} {said}"),
                Heard::Unknown => assert!(Instant::now() < until, "{path} is not answered"),
            }
        }
    }
}
