//! Those who ask: managers of every age, and XML-RPC clients of many languages.

mod managers;
mod peers;
