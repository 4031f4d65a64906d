//! Bulk statistics: one call for all active domains, each value handed out as it is read and the whole list freed.

use std::os::raw::{c_char, c_uint};
use std::ptr;

use virt_sys as sys;
use whydown_core::id::DomainId;

use super::domain::{text, uuid};
use super::{Conn, Fault};

/// Values of one domain that are read. A domain with a thousand disks has some twenty thousand; what lies behind is not
/// looked at.
const VALUES: usize = 64 * 1024;

/// Bytes of one text among the values.
const TEXT: usize = 1024;

/// One value of libvirt's typed parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Any whole number that is not negative and fits into 63 bits: a larger one is -1 in disguise.
    Number(u64),
    /// A number below zero.
    Negative(i64),
    /// A text.
    Text(String),
}

impl Conn {
    /// Hands out the wanted `groups` (`virDomainStatsTypes`) of every active domain: `begin` with its identity makes a
    /// place, `put` fills it value by value.
    ///
    /// With `nowait` (`..._NOWAIT`) a domain that another call is waiting for gives only what needs no monitor. The
    /// call itself may still wait for as long as a monitor does not answer.
    pub(crate) fn all_stats<T>(
        &self,
        groups: c_uint,
        nowait: bool,
        begin: impl Fn() -> T,
        mut put: impl FnMut(&mut T, &str, Value),
    ) -> Result<Vec<(DomainId, T)>, Fault> {
        let mut flags = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE;
        if nowait {
            flags |= sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
        }
        let mut list: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
        // SAFETY: the handle is valid while self lives, and `list` is a valid place.
        let count = unsafe { sys::virConnectGetAllDomainStats(self.raw(), groups, &mut list, flags) };
        let count = usize::try_from(count).map_err(|_| Fault::last())?;
        let records = Records(list);
        let mut all = Vec::with_capacity(count);
        for index in 0..count {
            // SAFETY: libvirt returned `count` valid records, alive until `records` is dropped.
            let record = unsafe { &**records.0.add(index) };
            // SAFETY: the record's handle is valid while the record is; only its UUID is copied.
            let Some(id) = (unsafe { uuid(record.dom) }) else { continue };
            let mut place = begin();
            let values = usize::try_from(record.nparams).unwrap_or(0).min(VALUES);
            for index in 0..values {
                // SAFETY: the record has `nparams` parameters, alive as long as it is.
                let parameter = unsafe { &*record.params.add(index) };
                // SAFETY: the type says which part of the union is set, as libvirt filled both.
                if let (Some(name), Some(value)) = (name_of(&parameter.field), unsafe { value_of(parameter) })
                {
                    put(&mut place, name, value);
                }
            }
            all.push((id, place));
        }
        Ok(all)
    }
}

/// The list that one call returned.
struct Records(*mut sys::virDomainStatsRecordPtr);

impl Drop for Records {
    fn drop(&mut self) {
        // SAFETY: the list came from libvirt, is freed once, and nothing borrows from it any more. NULL is allowed.
        unsafe { sys::virDomainStatsRecordListFree(self.0) };
    }
}

/// The name in its fixed array; `None` without its final zero, or if it is no ASCII.
pub(super) fn name_of(field: &[c_char]) -> Option<&str> {
    // SAFETY: `c_char` and `u8` have the same size, and every byte is a value of both.
    let bytes = unsafe { std::slice::from_raw_parts(field.as_ptr().cast::<u8>(), field.len()) };
    std::ffi::CStr::from_bytes_until_nul(bytes).ok()?.to_str().ok()
}

/// A whole number or a text; other types are nothing that is counted or told.
///
/// # Safety
///
/// The parameter's type must say which part of its union is set, and a text must be a C string.
pub(super) unsafe fn value_of(parameter: &sys::virTypedParameter) -> Option<Value> {
    let kind = sys::virTypedParameterType::try_from(parameter.type_).ok()?;
    // SAFETY: by contract, in every arm.
    unsafe {
        match kind {
            sys::VIR_TYPED_PARAM_INT => Some(signed(parameter.value.i.into())),
            sys::VIR_TYPED_PARAM_UINT => Some(Value::Number(parameter.value.ui.into())),
            sys::VIR_TYPED_PARAM_LLONG => Some(signed(parameter.value.l)),
            sys::VIR_TYPED_PARAM_ULLONG => {
                Some(parameter.value.ul).filter(|ul| *ul >> 63 == 0).map(Value::Number)
            }
            sys::VIR_TYPED_PARAM_STRING => Some(Value::Text(text(parameter.value.s, TEXT))),
            _ => None,
        }
    }
}

fn signed(number: i64) -> Value {
    u64::try_from(number).map_or(Value::Negative(number), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::event_loop;

    fn parameter(name: &str, kind: u32, value: sys::_virTypedParameterValue) -> sys::virTypedParameter {
        let mut field = [0; 80];
        for (place, byte) in field.iter_mut().zip(name.bytes()) {
            *place = byte as c_char;
        }
        sys::virTypedParameter { field, type_: kind as i32, value }
    }

    #[test]
    fn every_type_of_value_is_read_and_what_is_no_whole_number_is_nothing() {
        let text = c"vda";
        let cases = [
            (sys::VIR_TYPED_PARAM_INT, sys::_virTypedParameterValue { i: -1 }, Some(Value::Negative(-1))),
            (sys::VIR_TYPED_PARAM_INT, sys::_virTypedParameterValue { i: 7 }, Some(Value::Number(7))),
            (
                sys::VIR_TYPED_PARAM_UINT,
                sys::_virTypedParameterValue { ui: u32::MAX },
                Some(Value::Number(4_294_967_295)),
            ),
            (sys::VIR_TYPED_PARAM_LLONG, sys::_virTypedParameterValue { l: -5 }, Some(Value::Negative(-5))),
            (
                sys::VIR_TYPED_PARAM_ULLONG,
                sys::_virTypedParameterValue { ul: 1 << 62 },
                Some(Value::Number(1 << 62)),
            ),
            (sys::VIR_TYPED_PARAM_ULLONG, sys::_virTypedParameterValue { ul: u64::MAX }, None),
            (sys::VIR_TYPED_PARAM_DOUBLE, sys::_virTypedParameterValue { d: 1.0 }, None),
            (sys::VIR_TYPED_PARAM_BOOLEAN, sys::_virTypedParameterValue { b: 1 }, None),
            (
                sys::VIR_TYPED_PARAM_STRING,
                sys::_virTypedParameterValue { s: text.as_ptr().cast_mut() },
                Some(Value::Text("vda".into())),
            ),
            (99, sys::_virTypedParameterValue { ul: 1 }, None),
        ];
        for (kind, value, expected) in cases {
            // SAFETY: each value is of its type, and the text is a C string.
            assert_eq!(unsafe { value_of(&parameter("x", kind, value)) }, expected, "{kind}");
        }
    }

    #[test]
    fn a_name_without_its_end_is_none() {
        let value = sys::_virTypedParameterValue { i: 0 };
        assert_eq!(name_of(&parameter("block.0.name", 1, value).field), Some("block.0.name"));
        assert_eq!(name_of(&parameter(&"x".repeat(80), 1, value).field), None);
    }

    #[test]
    fn the_test_driver_gives_states_only_and_its_list_is_freed() {
        event_loop::ensure().unwrap();
        let conn = Conn::open("test:///default").unwrap();
        for _ in 0..1000 {
            let all = conn.all_stats(sys::VIR_DOMAIN_STATS_STATE, false, Vec::new, |all, name, value| {
                all.push((name.to_owned(), value));
            });
            // Other tests' domains may be there, too: they share the driver's world.
            let all = all.unwrap();
            let running = ("state.state".to_owned(), Value::Number(1));
            assert!(all.iter().any(|(_, values)| values.contains(&running)), "{all:?}");
        }
    }
}
