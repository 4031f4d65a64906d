//! What a domain's document says of how its ends can be told.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// The channel of QEMU's guest agent.
const AGENT: &str = "org.qemu.guest_agent.0";

/// The parts of a definition that matter here. Absent ones are libvirt's defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Definition {
    /// Its architecture, as libvirt calls it.
    pub arch: String,
    /// A panic device.
    pub panic_device: bool,
    /// The watchdog's action; libvirt's default where it has none of its own.
    pub watchdog: Option<String>,
    /// A channel for the guest agent, and whether an agent is connected to it now.
    pub agent: Option<bool>,
    /// A balloon that tells what the guest uses of its memory.
    pub balloon: bool,
    /// How often the balloon tells, in seconds; zero is never.
    pub balloon_period_s: u32,
    /// `on_poweroff`, where it stands.
    pub on_poweroff: Option<String>,
    /// `on_reboot`, where it stands.
    pub on_reboot: Option<String>,
    /// `on_crash`, where it stands.
    pub on_crash: Option<String>,
}

impl Definition {
    /// Reads a document of libvirt.
    ///
    /// # Errors
    /// It is not XML.
    pub fn read(xml: &str) -> Result<Self, quick_xml::Error> {
        let mut reader = Reader::from_str(xml);
        let mut found = Self::default();
        let mut path: Vec<String> = Vec::new();
        loop {
            match reader.read_event()? {
                Event::Eof => return Ok(found),
                Event::Start(start) => {
                    found.element(&path, &start)?;
                    path.push(start.name().as_ref().to_owned());
                }
                Event::Empty(start) => found.element(&path, &start)?,
                Event::End(_) => {
                    path.pop();
                }
                Event::Text(text) if path.len() == 2 => {
                    let slot = match path[1].as_str() {
                        "on_poweroff" => &mut found.on_poweroff,
                        "on_reboot" => &mut found.on_reboot,
                        "on_crash" => &mut found.on_crash,
                        _ => continue,
                    };
                    *slot = Some(text.xml10_content().trim().to_owned());
                }
                _ => {}
            }
        }
    }

    fn element(&mut self, path: &[String], start: &BytesStart<'_>) -> Result<(), quick_xml::Error> {
        let attribute = |name: &str| -> Result<Option<String>, quick_xml::Error> {
            Ok(start.try_get_attribute(name)?.map(|attribute| attribute.value.as_ref().to_owned()))
        };
        let inside: Vec<&str> = path.iter().map(String::as_str).collect();
        match (inside.as_slice(), start.name().as_ref()) {
            (["domain", "os"], "type") => self.arch = attribute("arch")?.unwrap_or_default(),
            (["domain", "devices"], "panic") => self.panic_device = true,
            (["domain", "devices"], "watchdog") => {
                self.watchdog = Some(attribute("action")?.unwrap_or_else(|| "reset".into()));
            }
            (["domain", "devices"], "memballoon") => {
                self.balloon = attribute("model")?.as_deref() != Some("none");
            }
            (["domain", "devices", "memballoon"], "stats") => {
                self.balloon_period_s = attribute("period")?.and_then(|text| text.parse().ok()).unwrap_or(0);
            }
            (["domain", "devices", "channel"], "target") if attribute("name")?.as_deref() == Some(AGENT) => {
                self.agent = Some(attribute("state")?.as_deref() == Some("connected"));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_read_from_its_own_place() {
        let all = Definition::read(
            "<domain><os><type arch='aarch64' machine='virt'>hvm</type></os><name>panic</name><on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot>\
             <on_crash>preserve</on_crash><metadata><panic/><on_crash>x</on_crash></metadata><devices>\
             <panic model='isa'/><watchdog model='i6300esb' action='poweroff'/><watchdog2/>\
             <channel type='unix'><source mode='bind'/>\
             <target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>\
             <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>\
             <memballoon model='virtio'><stats period='5'/></memballoon></devices></domain>",
        )
        .unwrap();
        let words = |text: &str| Some(text.to_owned());
        let wanted = Definition {
            arch: "aarch64".into(),
            panic_device: true,
            watchdog: words("poweroff"),
            agent: Some(true),
            balloon: true,
            balloon_period_s: 5,
            on_poweroff: words("destroy"),
            on_reboot: words("restart"),
            on_crash: words("preserve"),
        };
        assert_eq!(all, wanted);
        let none =
            Definition::read("<domain><devices><memballoon model='none'/></devices></domain>").unwrap();
        assert_eq!(none, Definition::default());
        let elsewhere = Definition::read("<domain><metadata><devices><panic/></devices></metadata></domain>");
        assert_eq!(elsewhere.unwrap(), Definition::default());
        assert!(Definition::read("<domain><a></domain>").is_err());
    }
}
