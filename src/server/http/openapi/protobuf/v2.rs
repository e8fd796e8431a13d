//! Types: the messages of `OpenAPIv2.proto`, as far as documents of Kubernetes use them.

use super::Kind::{Any, Bool, Double, Each, Int, Map, Message as Of, OneOf, Rest, Text, Wrapped};
use super::{Kind, Message, anything, has, is_bool, is_reference};

pub(super) static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Text),
        ("info", 2, Of(&INFO)),
        ("host", 3, Text),
        ("basePath", 4, Text),
        ("schemes", 5, Text),
        ("consumes", 6, Text),
        ("produces", 7, Text),
        ("paths", 8, Rest(&PATHS, 2, &Of(&PATH))),
        ("definitions", 9, Map(1, &Of(&SCHEMA))),
        ("parameters", 10, Map(1, &PARAMETER)),
        ("responses", 11, Map(1, &Of(&RESPONSE))),
        ("security", 12, Map(1, &Wrapped(&Text))),
        ("securityDefinitions", 13, Map(1, &SECURITY)),
        ("tags", 14, Of(&TAG)),
        ("externalDocs", 15, Of(&EXTERNAL_DOCS)),
    ],
    extensions: 16,
};

static INFO: Message = Message {
    fields: &[("title", 1, Text), ("version", 2, Text), ("description", 3, Text), ("termsOfService", 4, Text)],
    extensions: 7,
};

static TAG: Message = Message {
    fields: &[("name", 1, Text), ("description", 2, Text), ("externalDocs", 3, Of(&EXTERNAL_DOCS))],
    extensions: 4,
};

static EXTERNAL_DOCS: Message = Message { fields: &[("description", 1, Text), ("url", 2, Text)], extensions: 3 };

/// Every other word is a path.
static PATHS: Message = Message { fields: &[], extensions: 1 };

static PATH: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("get", 2, Of(&OPERATION)),
        ("put", 3, Of(&OPERATION)),
        ("post", 4, Of(&OPERATION)),
        ("delete", 5, Of(&OPERATION)),
        ("options", 6, Of(&OPERATION)),
        ("head", 7, Of(&OPERATION)),
        ("patch", 8, Of(&OPERATION)),
        ("parameters", 9, PARAMETER_OR_REFERENCE),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Text),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("externalDocs", 4, Of(&EXTERNAL_DOCS)),
        ("operationId", 5, Text),
        ("produces", 6, Text),
        ("consumes", 7, Text),
        ("parameters", 8, PARAMETER_OR_REFERENCE),
        ("responses", 9, Rest(&RESPONSES, 1, &RESPONSE_OR_REFERENCE)),
        ("schemes", 10, Text),
        ("deprecated", 11, Bool),
        ("security", 12, Map(1, &Wrapped(&Text))),
    ],
    extensions: 13,
};

/// Every other word is a code.
static RESPONSES: Message = Message { fields: &[], extensions: 2 };

const RESPONSE_OR_REFERENCE: Kind = OneOf(&[(is_reference, 2, Of(&REFERENCE)), (anything, 1, Of(&RESPONSE))]);
const PARAMETER_OR_REFERENCE: Kind = OneOf(&[(is_reference, 2, Of(&REFERENCE)), (anything, 1, PARAMETER)]);
const PARAMETER: Kind = OneOf(&[(is_body, 1, Of(&BODY)), (anything, 2, NON_BODY)]);
const NON_BODY: Kind = OneOf(&[
    (is_header, 1, Of(&HEADER_OR_PATH)),
    (is_form, 2, Of(&QUERY_OR_FORM)),
    (is_query, 3, Of(&QUERY_OR_FORM)),
    (anything, 4, Of(&HEADER_OR_PATH)),
]);
const SECURITY: Kind = OneOf(&[(is_basic, 1, Of(&BASIC)), (anything, 2, Of(&API_KEY))]);

static REFERENCE: Message = Message { fields: &[("$ref", 1, Text), ("description", 2, Text)], extensions: 0 };

static RESPONSE: Message =
    Message { fields: &[("description", 1, Text), ("schema", 2, OneOf(&[(anything, 1, Of(&SCHEMA))]))], extensions: 5 };

static BODY: Message = Message {
    fields: &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Bool),
        ("schema", 5, Of(&SCHEMA)),
    ],
    extensions: 6,
};

static HEADER_OR_PATH: Message = Message {
    fields: &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("default", 9, Any),
        ("pattern", 16, Text),
        ("uniqueItems", 19, Bool),
        ("enum", 20, Each),
    ],
    extensions: 22,
};

static QUERY_OR_FORM: Message = Message {
    fields: &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("allowEmptyValue", 5, Bool),
        ("type", 6, Text),
        ("format", 7, Text),
        ("default", 10, Any),
        ("pattern", 17, Text),
        ("uniqueItems", 20, Bool),
        ("enum", 21, Each),
    ],
    extensions: 23,
};

static BASIC: Message = Message { fields: &[("type", 1, Text), ("description", 2, Text)], extensions: 3 };

static API_KEY: Message = Message {
    fields: &[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)],
    extensions: 5,
};

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Double),
        ("maximum", 7, Double),
        ("exclusiveMaximum", 8, Bool),
        ("minimum", 9, Double),
        ("exclusiveMinimum", 10, Bool),
        ("maxLength", 11, Int),
        ("minLength", 12, Int),
        ("pattern", 13, Text),
        ("maxItems", 14, Int),
        ("minItems", 15, Int),
        ("uniqueItems", 16, Bool),
        ("maxProperties", 17, Int),
        ("minProperties", 18, Int),
        ("required", 19, Text),
        ("enum", 20, Each),
        ("additionalProperties", 21, OneOf(&[(is_bool, 2, Bool), (anything, 1, Of(&SCHEMA))])),
        ("type", 22, Wrapped(&Text)),
        ("items", 23, Wrapped(&Of(&SCHEMA))),
        ("allOf", 24, Of(&SCHEMA)),
        ("properties", 25, Map(1, &Of(&SCHEMA))),
        ("discriminator", 26, Text),
        ("readOnly", 27, Bool),
        ("externalDocs", 29, Of(&EXTERNAL_DOCS)),
        ("example", 30, Any),
    ],
    extensions: 31,
};

fn is_body(json: &str) -> bool {
    has(json, "in", Some("body"))
}

fn is_header(json: &str) -> bool {
    has(json, "in", Some("header"))
}

fn is_form(json: &str) -> bool {
    has(json, "in", Some("formData"))
}

fn is_query(json: &str) -> bool {
    has(json, "in", Some("query"))
}

fn is_basic(json: &str) -> bool {
    has(json, "type", Some("basic"))
}
