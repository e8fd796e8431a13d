//! Types: what annotations say of StorageClasses, and of who names one.

/// The class of a claim or a volume, where it is older than the field for it.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// "true" on the class of claims that name none; the second one is older.
pub const IS_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
