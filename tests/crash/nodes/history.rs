//! What was asked and answered, and whether all of it fits together. Knows nothing of the product but its promises.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// After an answered revocation it holds everywhere within this.
pub const REVOKED_WITHIN: Duration = Duration::from_secs(1);
/// A command that was handed over so often without an answer may be overtaken (Q8).
const PARKED_AFTER: i64 = 4;

/// A command that somebody wants of one device. Its name is its idempotency key, too.
#[derive(Clone, Debug)]
pub struct Wish {
    pub device: usize,
    pub invoked: Instant,
    /// When the first answer said that it is accepted.
    pub accepted: Option<Instant>,
    /// What the answers called it. More than one: the key made more than one command.
    pub ids: BTreeSet<String>,
    /// The server said no; so it must never happen.
    pub refused: bool,
}

/// A command that somebody wants of many devices.
#[derive(Clone, Debug, Default)]
pub struct Job {
    pub devices: BTreeSet<usize>,
    pub ids: BTreeSet<String>,
}

/// One call of a device: what it was told, in order.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub device: usize,
    pub names: Vec<String>,
    /// So many of them were done, said so, and were answered.
    pub confirmed: usize,
}

/// Something was taken back, and somebody tried it afterwards.
#[derive(Clone, Debug)]
pub struct Trial {
    pub node: usize,
    pub revoked: Instant,
    pub tried: Instant,
    pub worked: bool,
}

/// Everything in the order in which it was seen.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub wishes: BTreeMap<String, Wish>,
    pub jobs: BTreeMap<String, Job>,
    pub exchanges: Vec<Exchange>,
    pub trials: Vec<Trial>,
    /// How many devices got in with each invitation.
    pub redeemed: Vec<usize>,
    /// Answers that must not be.
    pub wrong: Vec<String>,
    /// Answers by kind, for the report.
    pub seen: BTreeMap<&'static str, usize>,
}

impl History {
    pub fn note(&mut self, kind: &'static str) {
        *self.seen.entry(kind).or_default() += 1;
    }
}

/// What the database holds of a command in the end.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub state: String,
    pub job: Option<String>,
    /// How often it was handed over.
    pub sends: i64,
    /// Entries of the audit that say that it was made.
    pub made: i64,
    /// Events that say that it ended.
    pub ended: i64,
}

/// What the database holds in the end.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    pub commands: BTreeMap<String, Row>,
}

/// Everything that does not fit.
pub fn violations(history: &History, truth: &Truth) -> Vec<String> {
    let mut found = history.wrong.clone();
    wishes(history, truth, &mut found);
    jobs(history, truth, &mut found);
    telling(history, truth, &mut found);
    for trial in &history.trials {
        if trial.worked && trial.tried > trial.revoked + REVOKED_WITHIN {
            let late = trial.tried - trial.revoked;
            found.push(format!("node {} honoured what was taken back {late:?} before", trial.node));
        }
    }
    found.extend(
        history
            .redeemed
            .iter()
            .filter(|devices| **devices > 1)
            .map(|devices| format!("{devices} devices got in with one invitation")),
    );
    found
}

/// Q1, Q2, Q3, Q4: nothing accepted is lost, nothing is accepted twice, everything ends once.
fn wishes(history: &History, truth: &Truth, found: &mut Vec<String>) {
    let mut known = BTreeSet::new();
    for (name, wish) in &history.wishes {
        if wish.ids.len() > 1 {
            found.push(format!("{name} became several commands: {:?}", wish.ids));
        }
        if wish.refused && !wish.ids.is_empty() {
            found.push(format!("{name} was refused and accepted"));
        }
        for id in &wish.ids {
            known.insert(id.clone());
            match truth.commands.get(id) {
                None => found.push(format!("{name} was accepted as {id} and is gone")),
                Some(row) => {
                    if row.state != "acknowledged" {
                        found.push(format!("{name} is {} in the end", row.state));
                    }
                    if row.made != 1 || row.ended != 1 {
                        found.push(format!(
                            "{name} was made {} times and ended {} times",
                            row.made, row.ended
                        ));
                    }
                }
            }
        }
    }
    for (id, row) in &truth.commands {
        if row.job.is_none() && !known.contains(id) {
            found.push(format!("{id} is a command that nobody asked for"));
        }
    }
}

/// A job makes one command for each of its devices, and is one job.
fn jobs(history: &History, truth: &Truth, found: &mut Vec<String>) {
    let mut made: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in truth.commands.values() {
        if let Some(job) = &row.job {
            made.entry(job).or_default().push(row);
        }
    }
    for (name, job) in &history.jobs {
        if job.ids.len() > 1 {
            found.push(format!("{name} became several jobs: {:?}", job.ids));
        }
        for id in &job.ids {
            let rows = made.remove(id.as_str()).unwrap_or_default();
            if rows.len() != job.devices.len() {
                let (has, wants) = (rows.len(), job.devices.len());
                found.push(format!("job {name} made {has} commands for {wants} devices"));
            }
            if let Some(row) = rows.iter().find(|row| row.state != "acknowledged" || row.ended != 1) {
                found.push(format!("a command of job {name} is {} and ended {} times", row.state, row.ended));
            }
        }
    }
    found.extend(made.keys().map(|id| format!("{id} is a job that nobody asked for")));
}

/// Q4, Q5, Q6, by what each device heard.
fn telling(history: &History, truth: &Truth, found: &mut Vec<String>) {
    let mut heard: BTreeMap<usize, Vec<(&str, bool)>> = BTreeMap::new();
    for exchange in &history.exchanges {
        for (place, name) in exchange.names.iter().enumerate() {
            let confirmed = place < exchange.confirmed;
            heard.entry(exchange.device).or_default().push((name, confirmed));
        }
    }
    let parked = |name: &str| {
        let ids = history.wishes.get(name).map(|wish| &wish.ids);
        ids.into_iter()
            .flatten()
            .any(|id| truth.commands.get(id).is_some_and(|row| row.sends >= PARKED_AFTER))
    };
    for (device, told) in &heard {
        let mut order: Vec<&str> = Vec::new();
        let mut confirmed = BTreeSet::new();
        for (name, was_confirmed) in told {
            match (history.wishes.get(*name), history.jobs.get(*name)) {
                (Some(wish), _) if wish.device != *device => {
                    found.push(format!(
                        "device {device} was told {name}, which is for device {}",
                        wish.device
                    ));
                }
                (Some(wish), _) if wish.refused => {
                    found.push(format!("device {device} was told {name}, which was refused"));
                }
                (None, Some(job)) if !job.devices.contains(device) => {
                    found.push(format!("device {device} was told {name}, a job without it"));
                }
                (None, None) => found.push(format!("device {device} was told {name}, which nobody wants")),
                _ => {}
            }
            if confirmed.contains(name) {
                found.push(format!("device {device} was told {name} again after its answer was taken"));
            }
            if order.last() != Some(name) && order.contains(name) && !parked(name) {
                // Several of one delivery come again together; one after it was answered does not.
                let after = order.iter().skip_while(|other| *other != name).skip(1);
                if after.clone().any(|other| confirmed.contains(other)) {
                    found.push(format!("device {device} was told {name} again after a later one was done"));
                }
            }
            if !order.contains(name) {
                order.push(name);
            }
            if *was_confirmed {
                confirmed.insert(*name);
            }
        }
        in_order(*device, &order, history, &parked, found);
        let done = |(_, row): (&String, &Row)| row.state == "acknowledged";
        for (name, wish) in history.wishes.iter().filter(|(_, wish)| wish.device == *device) {
            let row = wish.ids.iter().find_map(|id| truth.commands.get_key_value(id));
            if row.is_some_and(done) && !order.contains(&name.as_str()) {
                found.push(format!("device {device} was never told {name}, which counts as done"));
            }
        }
    }
}

/// Q5: what was accepted before another was asked for is told before it.
fn in_order(
    device: usize,
    order: &[&str],
    history: &History,
    parked: &dyn Fn(&str) -> bool,
    found: &mut Vec<String>,
) {
    let mut latest: Option<(&str, Instant)> = None;
    for name in order {
        let Some(wish) = history.wishes.get(*name) else { continue };
        if let (Some((other, invoked)), Some(accepted)) = (latest, wish.accepted)
            && accepted < invoked
            && !parked(name)
        {
            found.push(format!("device {device} was told {other} before {name}, which was accepted earlier"));
        }
        if latest.is_none_or(|(_, invoked)| wish.invoked > invoked) {
            latest = Some((name, wish.invoked));
        }
    }
}

/// The checker sees what it is for: histories that are wrong in one thing each.
pub fn sees_what_is_wrong() {
    let (good, truth) = sound();
    assert_eq!(violations(&good, &truth), Vec::<String>::new(), "a sound history");
    type Spoil = fn(&mut History, &mut Truth);
    let spoilt: [(&str, Spoil); 16] = [
        ("is gone", |_, truth| drop(truth.commands.remove("id-a"))),
        ("became several commands", |history, truth| {
            history.wishes.get_mut("a").unwrap().ids.insert("id-x".into());
            truth.commands.insert("id-x".into(), row(None));
        }),
        ("nobody asked for", |_, truth| drop(truth.commands.insert("id-x".into(), row(None)))),
        ("in the end", |_, truth| truth.commands.get_mut("id-a").unwrap().state = "sent".into()),
        ("ended 2 times", |_, truth| truth.commands.get_mut("id-a").unwrap().ended = 2),
        ("made 0 times", |_, truth| truth.commands.get_mut("id-a").unwrap().made = 0),
        ("refused and accepted", |history, _| history.wishes.get_mut("a").unwrap().refused = true),
        ("before a, which was accepted earlier", |history, _| history.exchanges[0].names.swap(0, 1)),
        ("again after its answer", |history, _| tell(history, 0, &["a"], 1)),
        ("again after a later one was done", |history, _| {
            history.exchanges = Vec::new();
            tell(history, 0, &["a"], 0);
            tell(history, 0, &["b", "j"], 2);
            tell(history, 0, &["a"], 1);
        }),
        ("for device 0", |history, _| tell(history, 1, &["a"], 1)),
        ("which nobody wants", |history, _| tell(history, 1, &["zz"], 1)),
        ("never told a", |history, _| drop(history.exchanges[0].names.remove(0))),
        ("commands for 2 devices", |_, truth| drop(truth.commands.remove("id-j1"))),
        ("honoured what was taken back", |history, _| {
            let revoked = Instant::now();
            let tried = revoked + REVOKED_WITHIN * 2;
            history.trials.push(Trial { node: 1, revoked, tried, worked: true });
        }),
        ("with one invitation", |history, _| history.redeemed.push(2)),
    ];
    for (words, spoil) in spoilt {
        let (mut history, mut truth) = (good.clone(), truth.clone());
        spoil(&mut history, &mut truth);
        let found = violations(&history, &truth);
        assert!(found.iter().any(|one| one.contains(words)), "not seen: {words}; found: {found:?}");
    }
}

/// Two commands and a job, all as it should be.
fn sound() -> (History, Truth) {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let mut history = History::default();
    for (name, invoked) in [("a", 0), ("b", 100)] {
        let ids = [format!("id-{name}")].into();
        let accepted = Some(at(invoked + 50));
        let wish = Wish { device: 0, invoked: at(invoked), accepted, ids, refused: false };
        history.wishes.insert(name.into(), wish);
    }
    history.jobs.insert("j".into(), Job { devices: [0, 1].into(), ids: ["job".into()].into() });
    tell(&mut history, 0, &["a", "b", "j"], 3);
    tell(&mut history, 1, &["j"], 0);
    tell(&mut history, 1, &["j"], 1);
    history.redeemed = vec![1, 0];
    history.trials = vec![Trial { node: 0, revoked: at(0), tried: at(0), worked: true }];
    let mut truth = Truth::default();
    for (id, job) in [("id-a", None), ("id-b", None), ("id-j0", Some("job")), ("id-j1", Some("job"))] {
        truth.commands.insert(id.into(), row(job));
    }
    (history, truth)
}

fn row(job: Option<&str>) -> Row {
    Row { state: "acknowledged".into(), job: job.map(str::to_owned), sends: 1, made: 1, ended: 1 }
}

fn tell(history: &mut History, device: usize, names: &[&str], confirmed: usize) {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    history.exchanges.push(Exchange { device, names, confirmed });
}
