//! What a start makes of a registry whose log holds more than the registry ever writes.

use super::*;
use crate::storage::memory::MemStorage;

#[test]
fn a_registry_whose_batch_ends_beyond_its_last_record_is_read_to_its_end() {
    let storage: Arc<dyn Storage> = Arc::new(MemStorage::new());
    let dir = Path::new("/registry");
    crate::storage::create_dir_durably(&*storage, dir).expect("a healthy disk");
    Registry::create(&storage, dir).expect("a healthy disk");
    let (mut log, _) = Log::open(storage.clone(), &log_dir(dir, 0), config()).expect("just made");
    let mut builder = BatchBuilder::new(Compression::None);
    let key = PartitionKey { topic: uuid::Uuid::from_u128(7), partition: 0 };
    let line = postcard::to_stdvec(&Line::Event(key, Event::DirCreated)).expect("plain events always serialise");
    builder.push(0, None, Some(&line), &[]).expect("a small record");
    let mut batch = builder.build().expect("a small batch");
    // The header's last offset is one beyond that of its only record; then the checksum, as a writer would have made it.
    batch[23..27].copy_from_slice(&1i32.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch::stamp(&mut batch, log.end_offset(), 0);
    log.append(log.end_offset(), &batch).expect("a batch by its header");
    log.close_clean().expect("a healthy disk");
    let registry = Registry::open(&storage, dir).expect("its records are whole");
    assert!(registry.get(&key).is_some_and(|entry| entry.dir_created));
}
