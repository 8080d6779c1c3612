//! What protobuf needs to know about fields.

use super::{Body, FieldRef, StructType, Types};

/// Where a field stands in protobuf: its number, behind the numbers of the inlined messages around it.
///
/// JSON shows the fields of a Go struct that is embedded inline among those of the struct around it; protobuf shows
/// them in a message. Numbers are below 256 and nest at most three deep; the order is that of the fields on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(u32);

impl Number {
    /// The field is not part of the message (`kind` and `apiVersion`).
    pub const NONE: Number = Number(0);

    const LEVELS: u32 = 3;

    pub(super) fn parse(path: &str) -> Option<Number> {
        let mut number = 0;
        let mut levels = 0;
        for part in path.split('.') {
            let part: u8 = part.parse().ok().filter(|part| *part > 0)?;
            levels += 1;
            number = number << 8 | u32::from(part);
        }
        (levels <= Number::LEVELS).then(|| Number(number << (8 * (Number::LEVELS - levels))))
    }

    /// The number at a level; 0 below the last.
    pub fn at(self, level: u32) -> u32 {
        if level < Number::LEVELS { self.0 >> (8 * (Number::LEVELS - 1 - level)) & 0xff } else { 0 }
    }

    /// With another number at a level, and nothing below.
    pub fn with(self, level: u32, number: u32) -> Number {
        let shift = 8 * (Number::LEVELS - 1).saturating_sub(level);
        Number((self.0 >> shift & !0xff | number & 0xff) << shift)
    }

    /// The field's own number, in the message that it stands in.
    pub fn last(self) -> u32 {
        (0..Number::LEVELS).rev().map(|level| self.at(level)).find(|number| *number != 0).unwrap_or_default()
    }

    pub fn is_none(self) -> bool {
        self == Number::NONE
    }
}

impl Types {
    pub(super) fn sort_by_number(&mut self) {
        let mut order: Vec<u16> = (0..u16::try_from(self.fields.len()).unwrap_or(u16::MAX)).collect();
        for definition in &self.definitions {
            let Body::Struct(run) = definition.body else { continue };
            if let Some(run) = order.get_mut(run.range()) {
                run.sort_by_key(|at| self.fields.get(usize::from(*at)).map(|field| field.number));
            }
        }
        self.by_number = order;
    }
}

impl<'t> StructType<'t> {
    /// The fields that protobuf knows, in the order of their numbers.
    pub fn wire_fields(self) -> WireFields<'t> {
        let all = match self.definition().map(|definition| definition.body) {
            Some(Body::Struct(run)) => self.types.by_number.get(run.range()).unwrap_or_default(),
            _ => &[],
        };
        let fields = WireFields { types: self.types, indices: all };
        fields.range(fields.first_from(Number(1)), all.len())
    }
}

/// Fields in the order of their numbers.
#[derive(Clone, Copy)]
pub struct WireFields<'t> {
    types: &'t Types,
    indices: &'t [u16],
}

impl<'t> WireFields<'t> {
    pub fn len(self) -> usize {
        self.indices.len()
    }

    pub fn is_empty(self) -> bool {
        self.indices.is_empty()
    }

    pub fn get(self, at: usize) -> Option<FieldRef<'t>> {
        let index = self.indices.get(at)?;
        Some(FieldRef { types: self.types, field: self.types.fields.get(usize::from(*index))? })
    }

    pub fn range(self, from: usize, to: usize) -> WireFields<'t> {
        WireFields { indices: self.indices.get(from..to).unwrap_or_default(), ..self }
    }

    /// Where the fields from `number` on begin.
    pub fn first_from(self, number: Number) -> usize {
        let fields = &self.types.fields;
        self.indices.partition_point(|at| fields.get(usize::from(*at)).is_some_and(|field| field.number < number))
    }

    /// Where the group of fields that begins at `from` and shares the number at `level` ends.
    pub fn group_end(self, from: usize, level: u32) -> usize {
        let number = self.get(from).map(|field| field.number().at(level));
        (from..self.len())
            .find(|at| self.get(*at).map(|field| field.number().at(level)) != number)
            .unwrap_or(self.len())
    }
}

impl FieldRef<'_> {
    pub fn number(self) -> Number {
        self.field.number
    }

    /// Whether it is a pointer in Go: nothing and zero are two values.
    pub fn pointer(self) -> bool {
        self.field.pointer
    }

    /// Whether protobuf wraps the list in a message that has it as its field 1.
    pub fn wrapped(self) -> bool {
        self.field.wrapped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_as_on_the_wire() {
        let of = |path| Number::parse(path).unwrap();
        assert!(of("1") < of("2.1") && of("2.1") < of("2.1.1") && of("2.9") < of("3"));
        assert_eq!((of("2.1").at(0), of("2.1").at(1), of("2.1").at(2), of("2.1").at(3)), (2, 1, 0, 0));
        assert_eq!(of("2.1").with(1, 7), of("2.7"));
        assert_eq!(of("2.1.5").with(0, 7), of("7"));
        assert_eq!(Number::NONE.with(0, 4).with(1, 255), of("4.255"));
        for bad in ["", "0", "256", "1.2.3.4", "x"] {
            assert_eq!(Number::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn fields_are_found_by_number() {
        let container = Types::builtin().named("io.k8s.api.core.v1.EphemeralContainer").unwrap().as_struct().unwrap();
        let fields = container.wire_fields();
        assert_eq!(fields.len(), container.fields().len());
        assert_eq!(fields.get(0).unwrap().name(), "name");
        assert_eq!(fields.get(fields.len() - 1).unwrap().name(), "targetContainerName");
        assert_eq!(fields.group_end(0, 0), fields.len() - 1);
        let pod = Types::builtin().kind("", "v1", "Pod").unwrap().as_struct().unwrap();
        let names: Vec<_> = (0..3).map(|at| pod.wire_fields().get(at).unwrap().name()).collect();
        assert_eq!(names, ["metadata", "spec", "status"]);
    }
}
