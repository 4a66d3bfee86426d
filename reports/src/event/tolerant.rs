//! Events in JSON: an object with one key. A name that is not in [`EVENT_NAMES`] becomes [`Event::Unknown`], and is
//! written back as it was read; a known event with a body that cannot be read is an error.

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{EVENT_NAMES, Event, UnknownEvent};

pub fn serialize<S: Serializer>(event: &Event, serializer: S) -> Result<S::Ok, S::Error> {
    match event {
        Event::Unknown(UnknownEvent { name, body }) => {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(name, body)?;
            map.end()
        }
        known => known.serialize(serializer),
    }
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Event, D::Error> {
    let map = Map::<String, Value>::deserialize(deserializer)?;
    let keys = map.len();
    let (Some((name, body)), 1) = (map.into_iter().next(), keys) else {
        return Err(D::Error::custom(format!("an event is an object with one key, this one has {keys}")));
    };
    if !EVENT_NAMES.contains(&name.as_str()) {
        return Ok(Event::Unknown(UnknownEvent { name, body }));
    }
    Event::deserialize(Value::Object(Map::from_iter([(name, body)]))).map_err(D::Error::custom)
}
