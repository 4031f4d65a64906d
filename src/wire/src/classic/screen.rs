//! The screens of a classic VM.

use super::document::{Element, element};
use crate::fields::Fields;
use crate::refused::Refused;

/// Stands for `listen` until the host says which address it has on the network.
pub(super) const NETWORK: &str = "listenNetwork";

/// Parameters that say something about SPICE alone.
pub(super) const OF_SPICE: &[&str] = &["spiceSecureChannels", "copyPasteEnable", "fileTransferEnable"];

/// Channels of SPICE; VDSM put an `s` before the names of secure ones.
const CHANNELS: &[&str] =
    &["main", "display", "inputs", "cursor", "playback", "record", "smartcard", "usbredir"];

/// What is said of a screen, by the VM or by the device.
#[derive(Debug, Default)]
struct Said {
    listen: Option<String>,
    network: Option<String>,
    keys: Option<String>,
    secure: Option<Vec<Element>>,
    copy: Option<bool>,
    transfer: Option<bool>,
}

impl Said {
    fn of(fields: &Fields<'_>, keys: &str, spice: bool) -> Result<Self, Refused> {
        let said = Self {
            listen: fields.text("displayIp")?,
            network: fields.text("displayNetwork")?,
            keys: fields.text(keys)?,
            ..Self::default()
        };
        if !spice {
            return Ok(said);
        }
        Ok(Self {
            secure: fields.text("spiceSecureChannels")?.map(|names| secure(fields, &names)).transpose()?,
            copy: fields.flag("copyPasteEnable")?,
            transfer: fields.flag("fileTransferEnable")?,
            ..said
        })
    }

    /// What this leaves open `other` says.
    fn or(self, other: Self) -> Self {
        // An address of one does not go with a network of the other.
        let here = self.listen.is_some() || self.network.is_some();
        let (listen, network) =
            if here { (self.listen, self.network) } else { (other.listen, other.network) };
        Self {
            listen,
            network,
            keys: self.keys.or(other.keys),
            secure: self.secure.or(other.secure),
            copy: self.copy.or(other.copy),
            transfer: self.transfer.or(other.transfer),
        }
    }
}

fn secure(fields: &Fields<'_>, names: &str) -> Result<Vec<Element>, Refused> {
    let channel = |name: &str| {
        let name = name.trim();
        let known = [Some(name), name.strip_prefix('s')].into_iter().flatten();
        let known = known.into_iter().find(|name| CHANNELS.contains(name));
        let known = known
            .ok_or_else(|| fields.bad("spiceSecureChannels", &format!("made of {}", CHANNELS.join(", "))))?;
        Ok(element("channel").with("name", known).with("mode", "secure"))
    };
    names.split(',').filter(|name| !name.trim().is_empty()).map(channel).collect()
}

/// A screen by its old or new name; `None` for a name that is neither. What the device leaves open the VM says.
pub(super) fn screen(
    name: &str,
    vm: &Fields<'_>,
    device: Option<&Fields<'_>>,
) -> Result<Option<Element>, Refused> {
    let kind = match name {
        "vnc" => "vnc",
        "qxl" | "qxlnc" | "spice" => "spice",
        _ => return Ok(None),
    };
    let spice = kind == "spice";
    let own = device.map(|device| {
        device.structure("specParams", |spec| {
            spec.ignore(&["spiceSslCipherSuite"]);
            let said = Said::of(spec, "keyMap", spice)?;
            if !spice {
                spec.ignore(OF_SPICE);
            }
            Ok(said)
        })
    });
    let said = own.transpose()?.flatten().unwrap_or_default().or(Said::of(vm, "keyboardLayout", spice)?);
    let made = element("graphics").with("type", kind).with("autoport", "yes");
    let made = match (said.listen, said.network) {
        (Some(listen), _) if listen != "0" => made.with("listen", listen),
        (_, Some(network)) => made.with(NETWORK, network),
        _ => made.with("listen", "0.0.0.0"),
    };
    // As in the original: nobody comes in before `setVmTicket`, which QEMU takes only where there was a password.
    let made = made.with("passwd", "*****").with("passwdValidTo", "1970-01-01T00:00:01");
    let made = made.maybe("keymap", said.keys.filter(|_| !spice)).children(said.secure.unwrap_or_default());
    let no = |wanted: Option<bool>, name, key| (wanted == Some(false)).then(|| element(name).with(key, "no"));
    let made = made.children(no(said.copy, "clipboard", "copypaste"));
    Ok(Some(made.children(no(said.transfer, "filetransfer", "enable"))))
}
