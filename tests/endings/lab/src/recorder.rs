//! An ear of the lab's own: `virsh event` beside whydown, so that what was reported is known apart from it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use whydown_lab::wait_for;

/// One event as virsh prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    /// `lifecycle`, `reboot`, `watchdog`, …
    pub event: String,
    /// The domain's name.
    pub domain: String,
    /// What follows, such as `Stopped Destroyed`.
    pub detail: String,
}

impl RawEvent {
    /// From a line; `None` for what is no event of a domain.
    fn read(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("event '")?;
        let (event, rest) = rest.split_once("' for domain ")?;
        let (domain, detail) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'')?,
            None => rest.split_once(':').unwrap_or((rest, "")),
        };
        let detail = detail.trim_start_matches(':').trim();
        Some(Self { event: event.into(), domain: domain.trim().into(), detail: detail.into() })
    }

    /// The words of a lifecycle event: what happened, and its detail.
    pub fn lifecycle(&self) -> Option<(&str, &str)> {
        if self.event != "lifecycle" {
            return None;
        }
        Some(self.detail.split_once(' ').unwrap_or((&self.detail, "")))
    }

    /// In one phrase.
    pub fn phrase(&self) -> String {
        match self.lifecycle() {
            Some(_) => self.detail.clone(),
            None if self.detail.is_empty() => self.event.clone(),
            None => format!("{} {}", self.event, self.detail),
        }
    }
}

/// Records all events of one libvirtd, over its restarts.
pub struct Recorder {
    uri: String,
    heard: Arc<Mutex<Vec<RawEvent>>>,
    listening: Option<Listening>,
}

struct Listening {
    child: Child,
    reader: JoinHandle<()>,
}

impl Recorder {
    /// Listens at once.
    pub fn start(uri: &str) -> Result<Self> {
        let mut recorder = Self { uri: uri.into(), heard: Arc::default(), listening: None };
        recorder.listen()?;
        Ok(recorder)
    }

    /// Listens (again): to be called when libvirtd has been restarted. What was heard is kept.
    pub fn listen(&mut self) -> Result<()> {
        self.stop();
        let mut command = Command::new("stdbuf");
        // Into a pipe virsh would otherwise write only what fills a buffer.
        command.args(["-oL", "virsh", "-c", &self.uri, "event", "--all", "--loop", "--timestamp"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).env("LC_ALL", "C");
        let mut child = command.spawn().context("stdbuf and virsh: run tests/setup.sh test")?;
        let stdout = child.stdout.take().expect("piped");
        let heard = Arc::clone(&self.heard);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(event) = RawEvent::read(&line) {
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push(event);
                }
            }
        });
        self.listening = Some(Listening { child, reader });
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(mut listening) = self.listening.take() {
            // Both fail only where it has ended by itself.
            let _ = listening.child.kill();
            let _ = listening.child.wait();
            let _ = listening.reader.join();
        }
    }

    /// All events of a domain so far.
    pub fn of(&self, domain: &str) -> Vec<RawEvent> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().filter(|event| event.domain == domain).cloned().collect()
    }

    /// Waits for an event of a domain behind the first `skip` ones.
    pub fn wait(
        &self,
        domain: &str,
        skip: usize,
        limit: Duration,
        wanted: impl Fn(&RawEvent) -> bool,
    ) -> Result<()> {
        let what = format!("an event of {domain}");
        Ok(wait_for(&what, limit, || self.of(domain).iter().skip(skip).any(&wanted).then_some(()))?)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_virsh_prints_is_read() {
        let line = "2026-11-21 10:00:00.123+0000: event 'lifecycle' for domain 'a.b': Stopped Destroyed";
        let event = RawEvent::read(line).unwrap();
        assert_eq!(event.domain, "a.b");
        assert_eq!(event.lifecycle(), Some(("Stopped", "Destroyed")));
        let reboot = RawEvent::read("2026: event 'reboot' for domain 'x'").unwrap();
        assert_eq!((reboot.lifecycle(), reboot.phrase().as_str()), (None, "reboot"));
        let dog = RawEvent::read("event 'watchdog' for domain x: poweroff").unwrap();
        assert_eq!((dog.domain.as_str(), dog.phrase().as_str()), ("x", "watchdog poweroff"));
        assert_eq!(RawEvent::read("events received: 3"), None);
    }
}
