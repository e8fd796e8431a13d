//! Types: the messages of `OpenAPIv3.proto`, as far as documents of Kubernetes use them.

use super::Kind::{Any, Bool, Double, Each, Int, Map, Message as Of, OneOf, Rest, Text, Wrapped};
use super::{Choice, Kind, Message, anything, is_bool, is_number, is_reference, is_text};

pub(super) static DOCUMENT: Message = Message {
    fields: &[
        ("openapi", 1, Text),
        ("info", 2, Of(&INFO)),
        ("servers", 3, Of(&SERVER)),
        ("paths", 4, Rest(&PATHS, 1, &Of(&PATH))),
        ("components", 5, Of(&COMPONENTS)),
        ("security", 6, Map(1, &Wrapped(&Text))),
        ("tags", 7, Of(&TAG)),
        ("externalDocs", 8, Of(&EXTERNAL_DOCS)),
    ],
    extensions: 9,
};

static INFO: Message = Message {
    fields: &[
        ("title", 1, Text),
        ("description", 2, Text),
        ("termsOfService", 3, Text),
        ("version", 6, Text),
        ("summary", 8, Text),
    ],
    extensions: 7,
};

static SERVER: Message = Message { fields: &[("url", 1, Text), ("description", 2, Text)], extensions: 4 };

static TAG: Message = Message {
    fields: &[("name", 1, Text), ("description", 2, Text), ("externalDocs", 3, Of(&EXTERNAL_DOCS))],
    extensions: 4,
};

static EXTERNAL_DOCS: Message = Message { fields: &[("description", 1, Text), ("url", 2, Text)], extensions: 3 };

/// Every other word is a path.
static PATHS: Message = Message { fields: &[], extensions: 2 };

static PATH: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("get", 4, Of(&OPERATION)),
        ("put", 5, Of(&OPERATION)),
        ("post", 6, Of(&OPERATION)),
        ("delete", 7, Of(&OPERATION)),
        ("options", 8, Of(&OPERATION)),
        ("head", 9, Of(&OPERATION)),
        ("patch", 10, Of(&OPERATION)),
        ("trace", 11, Of(&OPERATION)),
        ("servers", 12, Of(&SERVER)),
        ("parameters", 13, PARAMETER),
    ],
    extensions: 14,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Text),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("externalDocs", 4, Of(&EXTERNAL_DOCS)),
        ("operationId", 5, Text),
        ("parameters", 6, PARAMETER),
        ("requestBody", 7, OneOf(&[(is_reference, 2, Of(&REFERENCE)), (anything, 1, Of(&REQUEST))])),
        ("responses", 8, Rest(&RESPONSES, 2, &RESPONSE)),
        ("deprecated", 10, Bool),
        ("security", 11, Map(1, &Wrapped(&Text))),
        ("servers", 12, Of(&SERVER)),
    ],
    extensions: 13,
};

/// Every other word is a code.
static RESPONSES: Message = Message { fields: &[("default", 1, RESPONSE)], extensions: 3 };

const RESPONSE: Kind = OneOf(&[(is_reference, 2, Of(&REFERENCE)), (anything, 1, Of(&ANSWER))]);
const PARAMETER: Kind = OneOf(&[(is_reference, 2, Of(&REFERENCE)), (anything, 1, Of(&QUERY))]);
const SECURITY: Kind = OneOf(&[(is_reference, 2, Of(&REFERENCE)), (anything, 1, Of(&SCHEME))]);
/// A static: schemas have schemas.
static SCHEMA_OR_REFERENCE: [Choice; 2] = [(is_reference, 2, Of(&REFERENCE)), (anything, 1, Of(&SCHEMA))];
/// Others have no word, and are an empty message.
const DEFAULT: Kind = OneOf(&[(is_number, 1, Double), (is_bool, 2, Bool), (is_text, 3, Text)]);

static REFERENCE: Message =
    Message { fields: &[("$ref", 1, Text), ("summary", 2, Text), ("description", 3, Text)], extensions: 0 };

static REQUEST: Message = Message {
    fields: &[("description", 1, Text), ("content", 2, Map(1, &Of(&MEDIA_TYPE))), ("required", 3, Bool)],
    extensions: 4,
};

static ANSWER: Message =
    Message { fields: &[("description", 1, Text), ("content", 3, Map(1, &Of(&MEDIA_TYPE)))], extensions: 5 };

static MEDIA_TYPE: Message =
    Message { fields: &[("schema", 1, OneOf(&SCHEMA_OR_REFERENCE)), ("example", 2, Any)], extensions: 5 };

static QUERY: Message = Message {
    fields: &[
        ("name", 1, Text),
        ("in", 2, Text),
        ("description", 3, Text),
        ("required", 4, Bool),
        ("deprecated", 5, Bool),
        ("allowEmptyValue", 6, Bool),
        ("style", 7, Text),
        ("explode", 8, Bool),
        ("allowReserved", 9, Bool),
        ("schema", 10, OneOf(&SCHEMA_OR_REFERENCE)),
        ("example", 11, Any),
        ("content", 13, Map(1, &Of(&MEDIA_TYPE))),
    ],
    extensions: 14,
};

static COMPONENTS: Message = Message {
    fields: &[
        ("schemas", 1, Map(1, &OneOf(&SCHEMA_OR_REFERENCE))),
        ("responses", 2, Map(1, &RESPONSE)),
        ("parameters", 3, Map(1, &PARAMETER)),
        ("requestBodies", 5, Map(1, &OneOf(&[(is_reference, 2, Of(&REFERENCE)), (anything, 1, Of(&REQUEST))]))),
        ("securitySchemes", 7, Map(1, &SECURITY)),
    ],
    extensions: 10,
};

static SCHEME: Message = Message {
    fields: &[
        ("type", 1, Text),
        ("description", 2, Text),
        ("name", 3, Text),
        ("in", 4, Text),
        ("scheme", 5, Text),
        ("bearerFormat", 6, Text),
        ("openIdConnectUrl", 8, Text),
    ],
    extensions: 9,
};

static SCHEMA: Message = Message {
    fields: &[
        ("nullable", 1, Bool),
        ("readOnly", 3, Bool),
        ("writeOnly", 4, Bool),
        ("externalDocs", 6, Of(&EXTERNAL_DOCS)),
        ("example", 7, Any),
        ("deprecated", 8, Bool),
        ("title", 9, Text),
        ("multipleOf", 10, Double),
        ("maximum", 11, Double),
        ("exclusiveMaximum", 12, Bool),
        ("minimum", 13, Double),
        ("exclusiveMinimum", 14, Bool),
        ("maxLength", 15, Int),
        ("minLength", 16, Int),
        ("pattern", 17, Text),
        ("maxItems", 18, Int),
        ("minItems", 19, Int),
        ("uniqueItems", 20, Bool),
        ("maxProperties", 21, Int),
        ("minProperties", 22, Int),
        ("required", 23, Text),
        ("enum", 24, Each),
        ("type", 25, Text),
        ("allOf", 26, OneOf(&SCHEMA_OR_REFERENCE)),
        ("oneOf", 27, OneOf(&SCHEMA_OR_REFERENCE)),
        ("anyOf", 28, OneOf(&SCHEMA_OR_REFERENCE)),
        ("not", 29, Of(&SCHEMA)),
        ("items", 30, Wrapped(&OneOf(&SCHEMA_OR_REFERENCE))),
        ("properties", 31, Map(1, &OneOf(&SCHEMA_OR_REFERENCE))),
        ("additionalProperties", 32, OneOf(&[(is_bool, 2, Bool), (anything, 1, OneOf(&SCHEMA_OR_REFERENCE))])),
        ("default", 33, DEFAULT),
        ("description", 34, Text),
        ("format", 35, Text),
    ],
    extensions: 36,
};
