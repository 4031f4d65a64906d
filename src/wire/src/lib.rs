//! XML-RPC in and out, in the form that VDSM gave to its managers
