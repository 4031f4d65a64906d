//! The decision: from a frozen dossier to a row of THE TABLE.
