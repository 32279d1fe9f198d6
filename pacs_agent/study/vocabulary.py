"""The words that name body parts in headers, as data: spellings of many languages, each with what it means.

Enters and leaves nothing: tables only. A spelling is written as people of that language write it, with its accents; the
reader (wording.py) folds case and accents. It never decides anything: what follows from a meaning is in bodypart.py.
"""

from collections.abc import Mapping
from types import MappingProxyType

BODY_PARTS: tuple[str, ...] = ("elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist")

# What a word may stand for beside the seven: `NONE` is any part that is not analysed.
NONE = "none"

# Read as shoulder with `[mapping] extended`, else parts that are not analysed.
EXTENDED: frozenset[str] = frozenset({"clavicle", "scapula", "acromioclavicular joint"})

# Words that leave open which part is meant, with the parts they may mean.
AMBIGUOUS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "extremity": frozenset((*BODY_PARTS, *EXTENDED, NONE)),
        "upper limb": frozenset((*BODY_PARTS, *EXTENDED, NONE)),
        "arm": frozenset(BODY_PARTS),
        "digit": frozenset(("finger", NONE)),
        "distal forearm": frozenset(("forearm", "wrist")),
        "proximal forearm": frozenset(("forearm", "elbow")),
        "distal humerus": frozenset(("humerus", "elbow")),
        "proximal humerus": frozenset(("humerus", "shoulder")),
    }
)
# A more exact word of the same text makes most of these plain: "upper extremity: hand" is a hand. Not this one: "arm
# and hand" are two parts.
NEVER_PLAIN: frozenset[str] = frozenset({"arm"})

# A mention of no anatomy: "scapular Y" is a view of the shoulder, "radial head" one of the elbow.
VIEW = "view"

SPELLINGS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        # Terms of PS3.16 Annex L, English, Latin, abbreviations of vendors and sites.
        "en": {
            "elbow": "elbow, elbows, elbow joint, elb, elbw, elbo, ellbow, olecranon, cubiti",
            "finger": "finger, fingers, thumb, thumbs, fgr, fing, fngr, forefinger, fingertip, digit of hand, "
            "digits of hand, finger of hand, fingers of hand, thumb of hand, pollex, digitus manus, "
            "digiti manus, finger joint",
            "forearm": "forearm, forearms, fore arm, forarm, f arm, lower arm, lowerarm, radius, ulna, radiusulna, "
            "radius ulna, radius and ulna, rad ulna, antebrachium, antebrachii, shaft of radius, shaft of ulna",
            "hand": "hand, hands, hnd, hnds, metacarpus, metacarpal, metacarpals, metacarpi, manus",
            "humerus": "humerus, humeri, humerous, humeral shaft, upper arm, upperarm, up arm, upper arms, "
            "upperarms, brachium",
            "shoulder": "shoulder, shoulders, shoulder joint, shldr, shldrs, shld, shoul, shouldr, sholder, shouder, "
            "glenohumeral, glenohumeral joint, gh joint",
            "wrist": "wrist, wrists, wrist joint, wri, wrst, wrsit, carpus, carpal, carpals, carpal tunnel, scaphoid, "
            "scaphoids, distal radius, distal radial, radius distal, lunate, radiocarpal, triquetrum, pisiform, "
            "os scaphoideum",
            "clavicle": "clavicle, clavicles, clavicula, clavical, clav, collar bone, collarbone",
            "scapula": "scapula, scapulae, scapular, scap, acromion, glenoid, coracoid, shoulder blade, "
            "shoulder blades",
            "acromioclavicular joint": "acjoint, acjoints, ac joint, ac joints, a c joint, a c joints, "
            "acromioclavicular joint, acromioclavicular joints, acromioclavicular, acromio clavicular joint, "
            "acromio clavicular, acg",
            "extremity": "extremity, extremities, ext, extremitaet, limb, limbs, extremete",
            "upper limb": "upper limb, upper limbs, upperlimb, upperlimbs, upper extremity, upper extremities, "
            "upperextremity, upper ext, upperext, up exm, upexm, up ext, upext, uext, u ext, up extremity, "
            "up extremities, uextr, up limb, upper exm, bone of upper limb, extremity upper, limb upper, upper xtrem, "
            "upper extrem, up extrem, shoulder girdle",
            "arm": "arm, arms",
            "digit": "digit, digits, dig, digitus, digiti, phalanx, phalanges, phalangeal, phalange",
            "distal forearm": "distal ulna, ulna distal, distal forearm, forearm distal, ulnar styloid",
            "proximal forearm": "proximal radius, radius proximal, proximal ulna, ulna proximal, proximal forearm",
            "distal humerus": "distal humerus, humerus distal, supracondylar humerus",
            "proximal humerus": "proximal humerus, humerus proximal",
            VIEW: "scapular y, scapula y, y scapula, y scapular, radial head, head of radius, radius head, "
            "humeral head, humerus head, head of humerus, surgical neck, neck of humerus, humeral neck, humerus neck, "
            "radial neck, neck of radius, femoral head, femoral neck, metacarpal head, metacarpal neck, "
            "navicular, navicular view, face, second hand, handprint, wristband, hand switch, hands up, ball catcher, "
            "ballcatcher, skyline, on the other hand, head first, feet first, head up, foot of bed, head of bed, "
            "foot end, head end, hip spica, footplate, hand foot switch, knee high, chest tube, chest pain, neck pain, "
            "leg up, hands over head, arms up, arm up, arms raised, arms down",
            "chest": "chest, thorax, thoracic, lung, lungs, cxr, pcxr, rib, ribs, ribcage, rib cage, sternum, "
            "mediastinum, chestabdomen, chestabdpelvis, neckchest, neckchestabdomen, neckchestabdpelv, heart, "
            "sternoclavicular, sternoclavicular joint, scjoint, sc joint, sc joints, trachea, bronchus, diaphragm",
            "abdomen": "abdomen, abdominal, abd, kub, abdomenpelvis, stomach, colon, bowel, small bowel, duodenum, "
            "ileum, jejunum, rectum, esophagus, oesophagus, kidney, kidneys, bladder, ureter, ureters, urethra, "
            "liver, gallbladder, "
            "pancreas, spleen, uterus, prostate, renal, urinary",
            "pelvis": "pelvis, pelvic, ilium, sacroiliac, si joint, si joints, sijoint, sijoints, pubis, acetabulum",
            "hip": "hip, hips, hip joint",
            "thigh": "thigh, thighs, femur, femurs, femora, femoris, femoral, upper leg, upperleg",
            "knee": "knee, knees, knee joint, patella, patellae, patellofemoral, genu, genus",
            "lower leg": "leg, legs, lower leg, lower legs, lowerleg, tibia, fibula, tibiafibula, tib fib, tibfib, "
            "calf, shin, crus, cruris, tibial, fibular, long leg",
            "ankle": "ankle, ankles, ankle joint, malleolus",
            "foot": "foot, feet, toe, toes, great toe, big toe, hallux, calcaneus, os calcis, heel, heels, tarsus, "
            "tarsal, metatarsal, metatarsals, metatarsus, forefoot, hindfoot, midfoot, talus, cuboid, "
            "tarsal navicular, "
            "calcaneum, subtalar, digit of foot, digits of foot, digitus pedis, pedis, pes planus",
            "lower limb": "lower limb, lower limbs, lowerlimb, lower extremity, lower extremities, lowerextremity, "
            "lower ext, lowerext, low exm, lowexm, lower exm, low ext, lowext, lext, l ext, low extremity, "
            "extremity lower, limb lower, "
            "pelvis and lower extremities, bone of lower limb, leg length, lower extrem, low extrem, lo ext",
            "spine": "spine, spinal, cspine, tspine, lspine, sspine, lsspine, tlspine, ctspine, c spine, t spine, "
            "l spine, s spine, ls spine, l s spine, tl spine, t l spine, cervical, lumbar, lumbosacral, sacrum, "
            "coccyx, sacral, thoracolumbar, vertebra, vertebrae, vertebral, scoliosis, odontoid, whole spine, "
            "cervical spine, thoracic spine, lumbar spine, c sp, l sp, t sp, atlas axis",
            "head": "head, skull, cranium, facial, facial bones, sinus, sinuses, pns, nasal, nose, orbit, orbits, "
            "mandible, maxilla, jaw, tmj, tmjs, mastoid, mastoids, zygoma, zygomatic, teeth, tooth, dental, mouth, "
            "ear, iac, panorex, opg, sella, headneck, eye, eyes, brain, temporomandibular",
            "neck": "neck, soft tissue neck, larynx, pharynx, thyroid, nasopharynx, cervix",
            "breast": "breast, breasts, mammo, mammography",
            "axilla": "axilla, axillae, armpit",
            "whole body": "wholebody, whole body, bone survey, skeletal survey, babygram, entire body",
            "another region": "adrenal, aorta, buttock, buttocks, carotid, cerebellum, cheek, circleofwillis, cornea, "
            "coronaryartery, eyelid, ovary, parotid, penis, sclera, scrotum, scalp, submandibular, testis, thymus, "
            "tongue, vagina, vulva",
        },
        "de": {
            "elbow": "Ellenbogen, Ellenbogengelenk, Ellbogen, Ellbogengelenk, Ellenbogens",
            "finger": "Daumen, Zeigefinger, Mittelfinger, Ringfinger, Kleinfinger, Langfinger, Fingergelenk, "
            "Fingern, Finger der Hand, Daumen der Hand, Fingers, Daumens",
            "forearm": "Unterarm, Unterarme, Unterarms, Speiche, Elle, Unterarmknochen, Radius und Ulna",
            "hand": "Hände, Mittelhand, Mittelhandknochen, Handskelett, Handteller",
            "humerus": "Oberarm, Oberarme, Oberarms, Oberarmknochen, Oberarmschaft, Humerusschaft",
            "shoulder": "Schulter, Schultern, Schultergelenk, Schultergelenke, Schultergelenks",
            "wrist": "Handgelenk, Handgelenke, Handgelenks, Handwurzel, Handwurzelknochen, Skaphoid, "
            "distaler Radius, distale Speiche, Karpaltunnel, Kahnbein der Hand, Kahnbein Hand",
            "clavicle": "Schlüsselbein, Schlüsselbeine, Klavikula",
            "scapula": "Schulterblatt, Schulterblätter, Skapula",
            "acromioclavicular joint": "Schultereckgelenk, Schultereckgelenke, AC Gelenk, AC Gelenke, "
            "Akromioklavikulargelenk",
            "extremity": "Extremität, Extremitäten, Gliedmaße, Gliedmaßen",
            "upper limb": "obere Extremität, obere Extremitäten, ob Extremität, obere Gliedmaße, obere Gliedmaßen",
            "digit": "Strahl, Fingerglied, Endglied, Endphalanx, Grundglied",
            "distal forearm": "distaler Unterarm, distale Ulna, Unterarm distal",
            "proximal forearm": "proximaler Unterarm, proximaler Radius, proximale Ulna, Unterarm proximal",
            "distal humerus": "distaler Humerus, distaler Oberarm, Oberarm distal",
            "proximal humerus": "proximaler Humerus, proximaler Oberarm, Oberarm proximal",
            VIEW: "Kahnbein, Radiusköpfchen, Radiuskopf, Humeruskopf, Oberarmkopf, zweite Hand, Kopf oben, "
            "Kopf Ende, Fußende, Kopfende",
            "chest": "Lunge, Brust, Brustkorb, Brustbein, Rippe, Rippen, Rippenthorax, Herz, Hemithorax",
            "abdomen": "Bauch, Magen, Darm, Niere, Nieren, Blase, Harnblase, Leber, Ösophagus, Abdomenübersicht",
            "pelvis": "Becken, Beckenübersicht, Iliosakralgelenk, Iliosakralgelenke, ISG, Kreuzdarmbeingelenk, "
            "Darmbein",
            "hip": "Hüfte, Hüften, Hüftgelenk, Hüftgelenke",
            "thigh": "Oberschenkel, Oberschenkels, Schenkelhals",
            "knee": "Knie, Kniegelenk, Kniegelenke, Kniescheibe",
            "lower leg": "Unterschenkel, Bein, Beine, Schienbein, Wadenbein, Wade",
            "ankle": "Sprunggelenk, Sprunggelenke, OSG, Knöchel",
            "foot": "Fuß, Füße, Zehe, Zehen, Großzehe, Vorfuß, Rückfuß, Mittelfuß, Ferse, Fersenbein, Kalkaneus, "
            "Fußwurzel, Calcaneus, Kahnbein Fuß, Kahnbein des Fußes",
            "lower limb": "untere Extremität, untere Extremitäten, Ganzbein, Ganzbeinaufnahme, Beinachse, "
            "Beinganzaufnahme",
            "spine": "Wirbelsäule, HWS, BWS, LWS, Halswirbelsäule, Brustwirbelsäule, Lendenwirbelsäule, Wirbel, "
            "Kreuzbein, Steißbein, Dens, WSGA, Wirbelsäulenganzaufnahme",
            "head": "Kopf, Schädel, Kiefer, Unterkiefer, Oberkiefer, Nase, Nasenbein, NNH, Nasennebenhöhlen, Zahn, "
            "Zähne, Orbita, Jochbein, Gesichtsschädel, Kiefergelenk, Auge, Felsenbein",
            "neck": "Hals, Halsweichteile, Kehlkopf",
            "breast": "Mamma, Mammae, Mammographie",
            "axilla": "Achsel, Achselhöhle",
            "whole body": "Ganzkörper, Skelettstatus, Babygramm",
        },
        "fr": {
            "elbow": "coude, coudes",
            "finger": "doigt, doigts, pouce, pouces, doigt de main, doigts de main, pouce de main, doigt main, "
            "doigts main, pouce main",
            "forearm": "avant bras, avantbras, cubitus et radius, radius et cubitus, radius cubitus, radius et ulna, "
            "os de avant bras",
            "hand": "main, mains, métacarpe, métacarpes, métacarpien, métacarpiens",
            "humerus": "humérus",
            "shoulder": "épaule, épaules, gléno humérale, glénohumérale",
            "wrist": "poignet, poignets, carpe, scaphoïde, scaphoïde carpien, canal carpien, radius distal",
            "clavicle": "clavicule, clavicules",
            "scapula": "omoplate, omoplates",
            "acromioclavicular joint": "acromio claviculaire, acromio claviculaires, acromioclaviculaire, "
            "acromioclaviculaires",
            "extremity": "extrémité, extrémités, membre, membres",
            "upper limb": "membre supérieur, membres supérieurs, extrémité supérieure, mbre sup, membre sup",
            "arm": "bras",
            "digit": "phalange, phalanges",
            VIEW: "tête radiale, de face, de profil, tête humérale, tête en bas",
            "chest": "poumon, poumons, thoracique, gril costal, côtes, cœur, sternum",
            "abdomen": "abdominal, estomac, rein, reins, vessie, ASP, foie, œsophage, ventre",
            "pelvis": "bassin, sacro iliaque, sacro iliaques, sacroiliaque, sacroiliaques",
            "hip": "hanche, hanches",
            "thigh": "cuisse, cuisses, fémur, fémurs",
            "knee": "genou, genoux, rotule, rotules",
            "lower leg": "jambe, jambes, péroné, mollet",
            "ankle": "cheville, chevilles",
            "foot": "pied, pieds, orteil, orteils, gros orteil, calcanéum, avant pied, talon, métatarse, "
            "scaphoïde tarsien, scaphoid tarsien, tarse, doigt de pied, doigts de pied",
            "lower limb": "membre inférieur, membres inférieurs, membre inf, pangonogramme, pangonométrie",
            "spine": "rachis, colonne, colonne vertébrale, rachis cervical, rachis lombaire, lombaire, lombaires, "
            "sacrum, vertèbre, vertèbres, cervicale, cervicales, dorsolombaire, télérachis",
            "head": "crâne, mâchoire, mandibule, nez, os propres, dent, dents, panoramique dentaire, tête, "
            "massif facial, orbite, orbites, sinus de face",
            "neck": "cou, larynx, cavum",
            "breast": "sein, seins, mammographie",
            "axilla": "aisselle, creux axillaire",
            "whole body": "corps entier, squelette entier",
        },
        "es": {
            "elbow": "codo, codos",
            "finger": "pulgar, pulgares, dedo de mano, dedos de mano, dedo mano, dedos mano, dedo índice, "
            "dedo medio, dedo anular, dedo meñique, meñique, dedo índice de mano, dedo pulgar",
            "forearm": "antebrazo, antebrazos, cúbito y radio, radio y cúbito, cúbito radio, radio cúbito",
            "hand": "mano, manos, metacarpiano, metacarpianos",
            "humerus": "húmero, húmeros",
            "shoulder": "hombro, hombros",
            "wrist": "muñeca, muñecas, carpo, escafoides, escafoide, túnel carpiano, radio distal",
            "clavicle": "clavícula, clavículas",
            "scapula": "escápula, escápulas, omóplato, omóplatos, omoplato",
            "acromioclavicular joint": "acromioclavicular, acromio clavicular",
            "extremity": "extremidad, extremidades, miembro, miembros",
            "upper limb": "miembro superior, miembros superiores, extremidad superior, extremidades superiores",
            "arm": "brazo, brazos",
            "digit": "dedo, dedos, falange, falanges",
            VIEW: "cabeza radial, cabeza de radio, cabeza humeral",
            "chest": "tórax, pulmón, pulmones, costilla, costillas, parrilla costal, esternón, corazón, torax",
            "abdomen": "abdominal, estómago, riñón, riñones, vejiga, hígado, esófago, vientre",
            "pelvis": "pelvis, sacroilíaca, sacroilíacas, sacroiliaca",
            "hip": "cadera, caderas",
            "thigh": "muslo, muslos, fémur",
            "knee": "rodilla, rodillas, rótula, rótulas",
            "lower leg": "pierna, piernas, peroné, tibia y peroné",
            "ankle": "tobillo, tobillos",
            "foot": "pie, pies, calcáneo, talón, antepié, dedo de pie, dedos de pie, dedo del pie, dedos del pie, "
            "dedo pie, dedos pie, dedo gordo, metatarso, metatarsiano, metatarsianos, tarso",
            "lower limb": "miembro inferior, miembros inferiores, extremidad inferior, extremidades inferiores, "
            "telemetría",
            "spine": "columna, columna vertebral, columna cervical, columna lumbar, columna dorsal, vértebra, "
            "vértebras, sacro, cóccix, lumbosacra, espinografía, coxis",
            "head": "cráneo, cabeza, mandíbula, nariz, senos paranasales, diente, dientes, ortopantomografía, "
            "órbita, huesos propios, cara",
            "neck": "cuello, laringe",
            "breast": "mama, mamas, mamografía",
            "axilla": "axila, axilas",
            "whole body": "cuerpo entero, serie ósea",
        },
        "it": {
            "elbow": "gomito, gomiti",
            "finger": "dito, dita, pollice, dito della mano, dita della mano, dito mano, dita mano",
            "forearm": "avambraccio, avambracci, radio e ulna, radio ulna, ulna e radio",
            "hand": "mano, mani, metacarpo",
            "humerus": "omero, omeri",
            "shoulder": "spalla, spalle",
            "wrist": "polso, polsi, scafoide, scafoide carpale, carpo",
            "clavicle": "clavicola, clavicole",
            "scapula": "scapola, scapole",
            "acromioclavicular joint": "acromion clavicolare, acromion claveare, acromioclaveare",
            "extremity": "estremità, arto, arti",
            "upper limb": "arto superiore, arti superiori, estremità superiore",
            "arm": "braccio, braccia",
            "digit": "falange, falangi",
            VIEW: "capitello radiale, testa radiale, testa omerale",
            "chest": "torace, polmone, polmoni, costa, coste, emicostato, sterno, cuore",
            "abdomen": "addome, stomaco, rene, reni, vescica, fegato, esofago, diretta addome",
            "pelvis": "bacino, pelvi, sacroiliache, sacroiliaca",
            "hip": "anca, anche, coxofemorale, coxo femorale",
            "thigh": "coscia, cosce, femore, femori",
            "knee": "ginocchio, ginocchia, rotula",
            "lower leg": "gamba, gambe, perone",
            "ankle": "caviglia, caviglie",
            "foot": "piede, piedi, alluce, dito del piede, dita del piede, dito piede, dita piede, calcagno, tallone, "
            "avampiede, scafoide tarsale, metatarso, tarso",
            "lower limb": "arto inferiore, arti inferiori, estremità inferiore",
            "spine": "rachide, colonna, colonna vertebrale, rachide cervicale, rachide lombare, lombosacrale, "
            "lombo sacrale, vertebra, vertebre, sacro, coccige, rachide in toto",
            "head": "cranio, testa, mandibola, naso, ossa nasali, seni paranasali, denti, ortopantomografia, "
            "orbita, mascellare",
            "neck": "collo, laringe",
            "breast": "mammella, mammelle, mammografia",
            "axilla": "ascella",
            "whole body": "corpo intero, scheletro in toto",
        },
        "nl": {
            "elbow": "elleboog, ellebogen",
            "finger": "vinger, vingers, duim, duimen, wijsvinger, middelvinger, ringvinger, vinger van hand, "
            "vingers van hand, pink",
            "forearm": "onderarm, onderarmen, spaakbeen, ellepijp, radius en ulna",
            "hand": "handen, middenhand, middenhandsbeen",
            "humerus": "bovenarm, bovenarmen, opperarm",
            "shoulder": "schouder, schouders, schoudergewricht",
            "wrist": "pols, polsen, polsgewricht, handwortel, handwortelbeentjes, scafoïd, distale radius",
            "clavicle": "sleutelbeen, sleutelbeenderen",
            "scapula": "schouderblad, schouderbladen",
            "acromioclavicular joint": "AC gewricht, acromioclaviculaire gewricht",
            "extremity": "extremiteit, extremiteiten, ledematen",
            "upper limb": "bovenste extremiteit, bovenste extremiteiten, bovenste ledematen",
            "digit": "kootje, falanx",
            VIEW: "radiuskop, radiuskopje, humeruskop",
            "chest": "longen, borst, borstkas, borstbeen, ribben, hart",
            "abdomen": "buik, maag, nier, nieren, blaas, lever, slokdarm, BOZ",
            "pelvis": "bekken, SI gewricht, SI gewrichten",
            "hip": "heup, heupen, heupgewricht",
            "thigh": "bovenbeen, dijbeen, bovenbenen",
            "knee": "knie, knieën, knieschijf",
            "lower leg": "onderbeen, onderbenen, been, benen, scheenbeen, kuitbeen",
            "ankle": "enkel, enkels",
            "foot": "voet, voeten, teen, tenen, grote teen, hiel, hielbeen, voorvoet, middenvoet",
            "lower limb": "onderste extremiteit, onderste extremiteiten, beenlengte",
            "spine": "wervelkolom, CWK, TWK, LWK, wervel, wervels, heiligbeen, stuitje, rug",
            "head": "hoofd, schedel, kaak, onderkaak, bovenkaak, neus, tand, tanden, oogkas, aangezicht",
            "neck": "hals, nek",
            "breast": "borsten, mammografie",
            "axilla": "oksel, oksels",
            "whole body": "hele lichaam, skeletstatus",
        },
        "pt": {
            "elbow": "cotovelo, cotovelos",
            "finger": "polegar, polegares, dedo da mão, dedos da mão, dedo mão, dedos mão, quirodáctilo, quirodáctilos",
            "forearm": "antebraço, antebraços, rádio e ulna, rádio ulna, ulna e rádio, rádio e cúbito",
            "hand": "mão, mãos, metacarpo",
            "humerus": "úmero, úmeros, húmero",
            "shoulder": "ombro, ombros",
            "wrist": "punho, punhos, carpo, escafóide, escafoide, rádio distal",
            "clavicle": "clavícula, clavículas",
            "scapula": "escápula, escápulas, omoplata, omoplatas",
            "acromioclavicular joint": "acrômio clavicular, acromioclavicular",
            "extremity": "extremidade, extremidades, membro, membros",
            "upper limb": "membro superior, membros superiores, extremidade superior",
            "arm": "braço, braços",
            "digit": "dedo, dedos, falange, falanges",
            VIEW: "cabeça do rádio, cabeça radial, cabeça do úmero",
            "chest": "tórax, pulmão, pulmões, costela, costelas, arcos costais, esterno, coração",
            "abdomen": "abdome, abdômen, abdominal, estômago, rim, rins, bexiga, fígado, esôfago",
            "pelvis": "bacia, pelve, sacroilíaca, sacroilíacas",
            "hip": "quadril, quadris, anca, ancas",
            "thigh": "coxa, coxas, fêmur",
            "knee": "joelho, joelhos, patela, rótula",
            "lower leg": "perna, pernas, tíbia, fíbula, perônio",
            "ankle": "tornozelo, tornozelos",
            "foot": "pé, pés, dedo do pé, dedos do pé, dedo de pé, hálux, calcâneo, calcanhar, pododáctilo, "
            "pododáctilos, antepé, metatarso, tarso",
            "lower limb": "membro inferior, membros inferiores, escanometria",
            "spine": "coluna, coluna vertebral, coluna cervical, coluna lombar, coluna torácica, vértebra, vértebras, "
            "sacro, cóccix, lombar, lombossacra",
            "head": "crânio, cabeça, mandíbula, nariz, seios da face, dente, dentes, órbita, ossos da face",
            "neck": "pescoço, laringe",
            "breast": "mama, mamas, mamografia",
            "axilla": "axila, axilas",
            "whole body": "corpo inteiro",
        },
        # Scandinavian: Swedish, Danish, Norwegian.
        "sv": {
            "elbow": "armbåge, armbågar, armbågsled, albue, albuer, albueledd, albueled",
            "finger": "fingrar, fingre, tumme, tummar, tommel, tommelfinger, pekfinger, pegefinger, pekefinger, "
            "långfinger, lillfinger, lillefinger",
            "forearm": "underarm, underarmar, underarme, underarmer",
            "hand": "hånd, händer, hænder, hender, mellanhand, mellomhånd, mellemhånd",
            "humerus": "överarm, överarmar, overarm, overarme, overarmer",
            "shoulder": "axel, axlar, axelled, skulder, skuldre, skulderled, skulderledd",
            "wrist": "handled, handleder, håndled, håndledd, handlov, handlovsben, båtben",
            "clavicle": "nyckelben, nøgleben, kragebein, kraveben",
            "scapula": "skulderblad, skulderblade, skuldra",
            "upper limb": "övre extremitet, øvre ekstremitet, overekstremitet",
            "extremity": "extremitet, ekstremitet",
            "chest": "lungor, bröstkorg, lunger, revben, ribben, brystkasse, ribbein",
            "abdomen": "buk, mage, mave, buköversikt",
            "pelvis": "bäcken, bekken, bækken",
            "hip": "höft, höfter, hofte, hofter, höftled",
            "thigh": "lår, lårben, lårbein",
            "knee": "knä, knän, knæ, kne, knär",
            "lower leg": "underben, underbein, legg, skinnebein, skinneben",
            "ankle": "fotled, ankel, ankler",
            "foot": "fot, fötter, fod, fødder, føtter, tå, tår, tær, hälben, hæl",
            "spine": "ryggrad, halsrygg, ländrygg, bröstrygg, rygg, ryg, columna, nakke, lænderyg",
            "head": "skalle, huvud, hoved, hode, käke, kæbe, kjeve, näsa, næse, nese",
            "neck": "nacke",
        },
        "pl": {
            "elbow": "łokieć, staw łokciowy, łokcia, łokciowy",
            "finger": "kciuk, kciuka, palec ręki, palce ręki, palec dłoni, palca ręki",
            "forearm": "przedramię, przedramienia",
            "hand": "ręka, ręki, dłoń, dłoni, śródręcze",
            "humerus": "kość ramienna, kości ramiennej",
            "shoulder": "staw barkowy, stawu barkowego, barku, staw ramienny",
            "wrist": "nadgarstek, nadgarstka",
            "clavicle": "obojczyk, obojczyka",
            "scapula": "łopatka, łopatki",
            "arm": "ramię, ramienia",
            "digit": "palec, palce, palca",
            "upper limb": "kończyna górna, kończyny górnej",
            "extremity": "kończyna, kończyny",
            "chest": "klatka piersiowa, klatki piersiowej, płuca, żebra, mostek",
            "abdomen": "brzuch, jama brzuszna, brzucha",
            "pelvis": "miednica, miednicy",
            "hip": "biodro, staw biodrowy, biodra",
            "thigh": "udo, kość udowa",
            "knee": "kolano, staw kolanowy, kolana",
            "lower leg": "podudzie, podudzia, goleń",
            "ankle": "kostka, staw skokowy",
            "foot": "stopa, stopy, pięta, palec stopy, palce stopy, paluch",
            "lower limb": "kończyna dolna, kończyny dolnej",
            "spine": "kręgosłup, kręgosłupa",
            "head": "czaszka, głowa, czaszki, zatoki, żuchwa",
            "neck": "szyja, szyi",
        },
        "cs": {
            "elbow": "loket, lokte, loketní kloub",
            "finger": "prst ruky, prsty ruky, palec ruky",
            "forearm": "předloktí",
            "hand": "ruka, ruky",
            "humerus": "pažní kost",
            "shoulder": "rameno, ramena, ramenní kloub",
            "wrist": "zápěstí",
            "clavicle": "klíční kost",
            "scapula": "lopatka",
            "arm": "paže",
            "digit": "prst, prsty",
            "chest": "hrudník, plíce, žebra",
            "pelvis": "pánev",
            "hip": "kyčel, kyčle, kyčelní kloub",
            "knee": "koleno",
            "lower leg": "bérec",
            "ankle": "kotník, hlezno",
            "foot": "noha, nohy, chodidlo, prst nohy, prsty nohy, palec nohy, pata",
            "spine": "páteř",
            "head": "lebka, hlava",
            "neck": "krk",
        },
        "fi": {
            "elbow": "kyynärpää, kyynärnivel",
            "finger": "sormi, sormet, peukalo",
            "forearm": "kyynärvarsi",
            "hand": "käsi, kädet, kämmen",
            "humerus": "olkavarsi, olkaluu",
            "shoulder": "olkapää, olkanivel",
            "wrist": "ranne, ranteet",
            "clavicle": "solisluu",
            "scapula": "lapaluu",
            "chest": "keuhkot, rintakehä, kylkiluut",
            "pelvis": "lantio",
            "hip": "lonkka, lonkat",
            "thigh": "reisi, reisiluu",
            "knee": "polvi, polvet",
            "lower leg": "sääri",
            "ankle": "nilkka, nilkat",
            "foot": "jalkaterä, jalka, varvas, varpaat, kantapää",
            "spine": "selkäranka, lanneranka, kaularanka, rintaranka",
            "head": "kallo, pää",
        },
        "ru": {
            "elbow": "локоть, локтевой сустав, локтевого сустава",
            "finger": "палец кисти, пальцы кисти, пальца кисти",
            "forearm": "предплечье, предплечья",
            "hand": "кисть, кисти, кистей",
            "humerus": "плечевая кость, плечевой кости",
            "shoulder": "плечевой сустав, плечевого сустава",
            "wrist": "лучезапястный сустав, лучезапястного сустава, запястье, запястья",
            "clavicle": "ключица, ключицы",
            "scapula": "лопатка, лопатки",
            "arm": "плечо, плеча, рука, руки",
            "digit": "палец, пальцы, пальца",
            "chest": "грудная клетка, грудной клетки, легкие, ребра, огк",
            "pelvis": "таз, таза",
            "hip": "тазобедренный сустав, тазобедренного сустава",
            "thigh": "бедро, бедра",
            "knee": "колено, коленный сустав, коленного сустава",
            "lower leg": "голень, голени",
            "ankle": "голеностопный сустав, голеностопного сустава",
            "foot": "стопа, стопы, палец стопы, пальцы стопы",
            "spine": "позвоночник, позвоночника",
            "head": "череп, черепа, голова",
        },
    }
)

# Spellings that are everyday words of another language. They count where a word of their own language stands beside
# them, where they are written with their accent, or as the whole of BodyPartExamined.
WEAK: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "main": ("fr",),  # "Main Hospital"
        "mains": ("fr",),
        "mao": ("pt",),  # a name
        "maos": ("pt",),
        "dito": ("it",),  # ditto
        "handled": ("sv",),
        "handleder": ("sv",),
        "underarm": ("sv",),  # the armpit, in English
        "overarm": ("sv",),
        "axel": ("sv",),  # a name
        "elle": ("de",),  # a pronoun in French
        "speiche": ("de",),
        "pink": ("nl",),
        "kasi": ("fi",),
        "ranne": ("fi",),
        "mani": ("it",),
        "reka": ("pl",),
        "reki": ("pl",),
        "hender": ("sv",),
        "pie": ("es",),
        "been": ("nl",),
        "benen": ("nl",),
        "teen": ("nl",),
        "hart": ("nl",),  # names
        "costa": ("it",),
        "dens": ("de",),
        "cara": ("es",),
        "sein": ("de",),
        "anche": ("it",),
        "rug": ("nl",),
        "buk": ("sv",),
        "mage": ("sv",),
        "cou": ("fr",),
        "dent": ("fr",),
        "pe": ("pt",),
        "pes": ("pt",),
        "ta": ("sv",),
        "tar": ("sv",),
        "lar": ("sv",),
        "kne": ("sv",),
        "pata": ("cs",),
        "paa": ("fi",),
        "asp": ("fr",),
        "wade": ("de",),
        "arti": ("it",),
        "bein": ("de",),
        "udo": ("pl",),
        "abd": ("en",),  # abduction
        "boz": ("nl",),
    }
)

# These count as the whole of BodyPartExamined only: in a description "face" is a view and "back" a direction.
WHOLE_ONLY: Mapping[str, str] = MappingProxyType({"face": "head", "back": "spine"})

# Words that tell the language of a text, beside those in SPELLINGS that one language has alone.
LANGUAGE_MARKS: Mapping[str, str] = MappingProxyType(
    {
        "fr": "droite, droit, gauche, dte, gche, drte, profil, incidence, incidences, radiographie, radiographies, "
        "comparatives, comparatif",
        "pt": "direita, direito, esquerda, esquerdo, raio, raios, incidências",
        "it": "destra, destro, sinistra, sinistro, dx, sx, della, proiezioni",
        "es": "derecha, derecho, izquierda, izquierdo, dcha, izq, izda, radiografía, proyecciones",
        "nl": "rechter, linker, opname, foto, richtingen",
        "de": "rechts, links, beidseits, bds, Ebenen, Röntgen, Aufnahme",
        "sv": "höger, vänster, højre, høyre, venstre, och, røntgen, hö, vä",
        "fi": "oikea, vasen, oikean, vasemman",
        "pl": "prawa, prawy, prawej, lewa, lewy, lewej, rtg",
        "cs": "pravá, pravý, levá, levý",
        "en": "",
        "ru": "",
    }
)

# A part named directly after one of these was not examined, or is not a part of this picture.
VOID_BEFORE = (
    "after, post, no, not, without, excluding, exclude, except, via, outstretched, ohne, kein, keine, nach, sans, sin, "
    "senza, sem, zonder, après, tras, dopo, após, utan, efter"
)
# A part named directly before one of these is a trade, a place or a thing.
VOID_AFTER = (
    "side, corner, surgery, surgeon, surgeons, surgical, clinic, clinics, center, centre, therapy, therapist, "
    "service, unit, "
    "department, "
    "dept, ward, team, held, made, written, carried, wash, washing, hygiene, print, prints, printing, prick, stick, "
    "spica, off, dystocia, crutch, crutches, dominant, dominance, dominated, handed, injection, rest, grip, switch, "
    "band, strap, "
    "sprechstunde, ambulanz, chirurgie, zentrum, klinik, station, chirurgien, kirurgi, hospital, entrance, "
    "school, institute, instituut, policlinic, poli, polikliniek, hospitals, campus, building"
)
ARTICLES = (
    "the, la, le, les, el, los, las, il, lo, gli, der, die, das, den, dem, des, het, een, du, della, dello, del, al, "
    "a, an, un, une, una, uno, ein, eine, einer, do, da, os, as, o"
)
